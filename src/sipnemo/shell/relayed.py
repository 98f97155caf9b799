"""One flow at work in the relay: its sockets, its path or paths, and what it has counted."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from sipnemo.media.flow import MediaFlow, MediaPath
from sipnemo.shell.media_port import MediaPort
from sipnemo.shell.nft_objects import packed

Send = Callable[[memoryview, tuple[str, int]], int]


class Group:
    """The paths of one group, one per family; `version` grows with every change."""

    __slots__ = ("paths", "version")

    def __init__(self) -> None:
        self.paths: list[MediaPath | None] = [None, None]
        self.version = 1


class Relayed:
    """One flow at work."""

    __slots__ = (
        "admit",
        "arrival",
        "departure",
        "flow",
        "group",
        "octets",
        "overhead",
        "packets",
        "receive",
        "second",
        "send",
        "version",
    )

    def __init__(self, flow: MediaFlow, arrival: MediaPort, group: Group) -> None:
        self.flow = flow
        self.arrival = arrival
        self.group = group
        self.receive = arrival.sock.recv_into
        self.departure: MediaPort | None = None
        self.second: MediaPort | None = None
        "Where the copies leave from, while the group has two ways."
        self.send: Callable[[memoryview, tuple[str, int]], int] | None = None
        self.version = 0
        self.admit = admitted(flow)
        self.packets = 0
        self.octets = 0
        self.overhead = 48 if ":" in flow.key.host else 28  # IP and UDP headers: the kernel counts them too


def literal(host: str) -> str:
    """The address in its one canonical form; raises OSError when it is not an IP address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, host))


def check(flow: MediaFlow) -> None:
    """Raise OSError for a flow that no plane can forward; a name as an address would make sendto ask DNS and block."""
    try:
        packed(flow.key.host)
        packed(flow.peer[0])
    except (OSError, ValueError):
        raise OSError(f"media flow {flow.key.host}:{flow.key.port} → {flow.peer[0]!r}: not an IP address") from None
    if not (0 < flow.key.port < 65536 and 0 <= flow.peer[1] < 65536 and 0 < flow.source_port < 65536):
        raise OSError(f"media flow {flow.key.host}:{flow.key.port} → {flow.peer}: not a port")


def both(first: Send, second: Send) -> Send:
    """Send by two sockets; trouble is only what neither can send."""

    def send(data: memoryview, peer: tuple[str, int]) -> int:
        try:
            sent = first(data, peer)
        except OSError:
            return second(data, peer)
        with contextlib.suppress(OSError):
            second(data, peer)
        return sent

    return send


def admitted(flow: MediaFlow) -> frozenset[str] | None:
    """Addresses to learn from in canonical form; None when there is nothing to learn."""
    found = set()
    for host in flow.admit:
        try:
            found.add(literal(host))
        except (OSError, ValueError):
            continue  # a name in SDP is nothing packets come from
    return frozenset(found) or None
