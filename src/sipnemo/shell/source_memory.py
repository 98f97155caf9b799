"""Answer from the address that was asked: for sockets bound to every address (0.0.0.0 or ::).

Left alone, the kernel takes the source address of an answer from its routing table. On a host with several addresses
that may be another one than the request was sent to, and NATs, firewalls and strict clients drop the answer.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from sipnemo.sip.flow import Address

WILDCARDS = ("0.0.0.0", "::")
LINK_LOCAL = b"\xfe\x80"
MOST_REMEMBERED = 100_000

# Absent from the socket module of Python 3.11 (linux/in.h).
IP_PKTINFO = 8
_PKTINFO = struct.Struct("=i4s4s")  # struct in_pktinfo
_PKTINFO6 = struct.Struct("=16si")  # struct in6_pktinfo


class SourceMemory:
    """Receives and sends on one socket, and remembers which own address each far address wrote to last."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._remembered: dict[Address, list[tuple[int, int, bytes]]] = {}
        self._v6 = sock.family == socket.AF_INET6
        if self._v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)

    def receive(self, size: int) -> tuple[bytes, Any]:
        """Like `recvfrom`."""
        data, ancillary, _flags, address = self._sock.recvmsg(size, 64)
        for level, kind, body in ancillary:
            if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
                _ifindex, own, _destination = _PKTINFO.unpack(body)
                self._remember(address, [(level, kind, _PKTINFO.pack(0, own, bytes(4)))])
            elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
                own, ifindex = _PKTINFO6.unpack(body)
                # Only link-local addresses need the interface; of others it would overrule the routing table.
                source = _PKTINFO6.pack(own, ifindex if own[:2] == LINK_LOCAL else 0)
                self._remember((address[0].partition("%")[0], address[1]), [(level, kind, source)])
        return data, address

    def transmit(self, data: bytes, remote: Address) -> object:
        """Like `sendto`, from the own address that `remote` wrote to last, if it did."""
        source = self._remembered.get(remote)
        if source is None:
            return self._sock.sendto(data, remote)
        try:
            return self._sock.sendmsg([data], source, 0, remote)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EADDRNOTAVAIL, errno.ENETUNREACH):
                del self._remembered[
                    remote
                ]  # the own address is gone: the next attempt leaves the choice to the kernel
            raise

    def _remember(self, remote: Address, source: list[tuple[int, int, bytes]]) -> None:
        remembered = self._remembered
        if len(remembered) >= MOST_REMEMBERED and remote not in remembered:
            del remembered[next(iter(remembered))]
        remembered[remote] = source
