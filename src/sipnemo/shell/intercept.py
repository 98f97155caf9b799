"""Take SIP that phones send to other hosts through this gateway, so that they need no outbound proxy.

The kernel redirects it (nftables, destination NAT): the gateway's answers, and its requests to that phone, come back
with the address the phone had written to. TLS cannot be taken over: the phone would rightly refuse our certificate.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping

TABLE = "sipnemo_intercept"
SIP_PORT = 5060
"Where phones send SIP over UDP and TCP when nothing else is said (RFC 3261 §19.1.2)."


class InterceptError(Exception):
    """SIP cannot be intercepted; the text says what to do."""


def ruleset(interface: str, ports: Mapping[str, int]) -> str:
    """What nft is told: SIP from this interface to any other host ends at our port for its transport."""
    rules = "\n".join(
        f'    iifname "{interface}" fib daddr type unicast {transport.lower()} dport {SIP_PORT} redirect to :{port}'
        for transport, port in ports.items()
    )
    return f"""\
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
{rules}
  }}
}}
"""


@contextlib.contextmanager
def intercepting(interface: str, ports: Mapping[str, int]) -> Iterator[None]:
    """Intercept within the `with`; raises InterceptError. `ports` is transport (UDP, TCP) → own port."""
    _nft(ruleset(interface, ports))
    try:
        yield
    finally:
        with contextlib.suppress(InterceptError):
            _nft(f"delete table inet {TABLE}\n")


def _nft(commands: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    program = shutil.which("nft", path=path)
    if program is None:
        raise InterceptError("[nms] intercept = true needs the program nft; run: apt-get install nftables")
    done = subprocess.run([program, "-f", "-"], input=commands, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["nft failed"])[0]
        raise InterceptError(
            f"[nms] intercept = true cannot be done ({reason}); it needs CAP_NET_ADMIN and nf_tables with NAT"
        )
