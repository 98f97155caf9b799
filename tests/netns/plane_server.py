"""A media plane that obeys one JSON request per line: run inside a host by `inside.PlaneIn`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from sipnemo.media.flow import FlowKey, MediaFlow, MediaPath
from sipnemo.shell import nft_objects as nft
from sipnemo.shell.media_plane import open_plane
from sipnemo.shell.netlink import NETLINK_NETFILTER, Netlink, NetlinkError
from sipnemo.shell.nftables import TABLE


def _key(words: list[Any]) -> FlowKey:
    return FlowKey(words[0], words[1])


def _flow(words: list[Any]) -> MediaFlow:
    key, (host, port), source_port, group, admit, reverse = words
    return MediaFlow(_key(key), (host, port), source_port, group, tuple(admit), _key(reverse) if reverse else None)


def census() -> dict[str, int]:
    """Tables and flow elements in this network; sockets of this process that are not pipes or netlink."""
    netlink = Netlink(NETLINK_NETFILTER)
    tables = len(netlink.ask_nf_tables(nft.GETTABLE, b"", "listing tables"))
    elements = 0
    for name in ("flow4", "flow6"):
        try:
            found = netlink.ask_nf_tables(nft.GETSETELEM, nft.map_name(TABLE, name), "listing elements")
        except NetlinkError:
            continue
        elements += sum(1 for message in found for _element in nft.counted_elements(message.body))
    netlink.close()
    inodes = set()
    for name in ("udp", "udp6"):
        with open(f"/proc/self/net/{name}") as table:
            inodes |= {line.split()[9] for line in table.readlines()[1:]}
    links = [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]
    sockets = sum(link.removeprefix("socket:[").removesuffix("]") in inodes for link in links)
    return {"tables": tables, "elements": elements, "sockets": sockets}


async def main(kind: str) -> None:
    """Answer until standard input ends."""
    learned: list[tuple[FlowKey, tuple[str, int]]] = []
    try:
        plane, reason = open_plane(kind, lambda key, peer: learned.append((key, peer)))
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        return
    print(json.dumps({"result": [plane.kind, reason]}), flush=True)

    def answer(op: str, argument: Any) -> Any:
        match op:
            case "attach":
                plane.attach(argument)
            case "refresh_routes":
                plane.refresh_routes()
            case "add":
                plane.add([_flow(words) for words in argument])
            case "remove":
                plane.remove([_key(words) for words in argument])
            case "set_path":
                group, source, device, also = argument
                plane.set_path(MediaPath(group, source, device, tuple(also) if also else None))
            case "counters":
                found = plane.counters([_key(words) for words in argument] or None)
                return [[key, *count] for key, count in found.items()]
            case "learned":
                return learned
            case "statistics":
                return plane.statistics()._asdict()
            case "census":
                return census()
            case "close":
                plane.close()
        return None

    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def readable() -> None:
        data = os.read(0, 1 << 20)
        if not data:
            loop.remove_reader(0)
            ended.set_result(None)
            return
        while not data.endswith(b"\n"):
            data += os.read(0, 1 << 20)
        for line in data.splitlines():
            try:
                print(json.dumps({"result": answer(*json.loads(line))}), flush=True)
            except Exception as error:
                print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)

    loop.add_reader(0, readable)
    await ended
    plane.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
