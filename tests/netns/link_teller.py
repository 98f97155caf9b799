"""Runs inside a host of a test: prints links and, when asked to, keeps routes. One JSON object a line.

`link_teller.py INTERFACES UPLINKS GATEWAYS`: comma-separated names, comma-separated names or addresses (none: routes
are left alone), JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from sipnemo.roles.node import Link
from sipnemo.shell.links import Links
from sipnemo.shell.uplink_routes import UplinkRoutes


async def main(interfaces: str, uplinks: str, gateways: str) -> None:
    routes = UplinkRoutes(uplinks.split(","), json.loads(gateways)) if uplinks else None

    def changed(link: Link) -> None:
        if routes is not None:
            routes.link_changed(link)
        print(json.dumps({"at": time.monotonic(), **link._asdict()}), flush=True)

    links = Links(
        changed, [name for name in interfaces.split(",") if name], routes.apply if routes is not None else lambda: None
    )
    links.start()
    print(json.dumps({"started": True}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the test closes our input
    links.close()
    if routes is not None:
        routes.close()


asyncio.run(main(*sys.argv[1:4]))
