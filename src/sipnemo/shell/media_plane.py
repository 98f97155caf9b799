"""Forwarding of media: the interface that kernel and userspace planes share, and the choice between them."""

from __future__ import annotations

import contextlib
import errno
import resource
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from sipnemo.media.flow import FlowKey, MediaFlow, MediaPath
from sipnemo.shell.nftables import TABLE, KernelPlane
from sipnemo.shell.relay import OnLearned, PlaneStatistics, RelayPlane

__all__ = ["MediaPlane", "Opened", "PlaneError", "PlaneStatistics", "open_plane"]

KINDS = ("auto", "kernel", "userspace")


class PlaneError(RuntimeError):
    """The media plane asked for cannot be had; the text says why and what to do."""


class MediaPlane(Protocol):
    """Forwards RTP and RTCP. Every call takes effect before it returns; none waits for the network.

    A group leaves by one path at a time, except INSIDE, which has one path per address family: setting its IPv6 path
    leaves its IPv4 path as it is. Packets of a group that has no path (of their family) are discarded.
    """

    kind: str
    "'kernel' or 'userspace'."

    def attach(self, devices: Iterable[str]) -> None:
        """Take media in from exactly these interfaces from now on. Missing ones are skipped: call again when an
        interface has come (back), whatever its index is then."""
        ...

    def refresh_routes(self) -> None:
        """Addresses, routes or interfaces have changed: look up the next hops anew."""
        ...

    def add(self, flows: Sequence[MediaFlow]) -> None:
        """Forward these flows from now on, all or (OSError) none; a known key is replaced and keeps its counters."""
        ...

    def remove(self, keys: Iterable[FlowKey]) -> None:
        """Stop forwarding; unknown keys are ignored."""
        ...

    def set_path(self, path: MediaPath) -> None:
        """Every flow of the group leaves by this path from the next packet on. One write."""
        ...

    def punch(self, path: MediaPath, port: int, peer: tuple[str, int], data: bytes) -> None:
        """Send these octets once from a media port by a path, for the NATs on it; what cannot be sent is not."""
        ...

    def counters(self, keys: Iterable[FlowKey] | None = None) -> dict[FlowKey, tuple[int, int]]:
        """Packets and octets (of UDP payload, as far as known) taken in so far per flow; unknown keys are absent."""
        ...

    def statistics(self) -> PlaneStatistics:
        """What the plane holds and what went wrong."""
        ...

    def close(self) -> None:
        """Stop forwarding and leave nothing behind. Closing twice is harmless."""
        ...


class Opened(NamedTuple):
    """A media plane, and why it is this one."""

    plane: MediaPlane
    reason: str


def open_plane(kind: str, on_learned: OnLearned | None = None, *, table: str = TABLE) -> Opened:
    """The media plane that `[media] plane` asks for; raises PlaneError when it cannot be had. Needs a running loop.

    "auto" is the kernel plane where nf_tables' netdev hook works in this network namespace, else the userspace plane.
    """
    if kind not in KINDS:
        raise PlaneError(f"[media] plane = {kind!r}: want one of {', '.join(KINDS)}")
    _allow_many_sockets()
    if kind == "userspace":
        return Opened(RelayPlane(on_learned), "the configuration asks for it")
    try:
        return Opened(KernelPlane(on_learned, table), "nf_tables forwards at netdev ingress here")
    except OSError as error:
        why = why_not(error, table)
    if kind == "kernel":
        raise PlaneError(f'[media] plane = "kernel" is not possible: {why}; or set plane = "auto"')
    return Opened(RelayPlane(on_learned), why)


def why_not(error: OSError, table: str) -> str:
    """What an operator can do about a kernel plane that does not start."""
    match error.errno:
        case errno.EPERM if "deleting table" in str(error):
            return f"another process owns the nf_tables table netdev {table}: stop the other sipnemo in this network"
        case errno.EPERM | errno.EACCES:
            return (
                "changing nf_tables is not permitted: give the process CAP_NET_ADMIN (AmbientCapabilities= in the unit)"
            )
        case errno.EPROTONOSUPPORT | errno.EAFNOSUPPORT:
            return "this kernel has no nf_tables (CONFIG_NF_TABLES)"
        case errno.EOPNOTSUPP | errno.ENOENT:
            return (
                "this kernel's nf_tables cannot forward at netdev ingress (CONFIG_NF_TABLES_NETDEV, "
                f"CONFIG_NFT_FWD_NETDEV; kernel 5.4 or later): {error.strerror}"
            )
        case _:
            return f"nf_tables: {error.strerror}"


def _allow_many_sockets() -> None:
    """Raise the soft limit on open files to the hard one: the relay holds two sockets per stream and more."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
