"""The UDP sockets of the relay: one at each own address and port that media passes."""

from __future__ import annotations

import socket
import struct

from sipnemo.media.flow import FlowKey

# Absent from the socket module of Python 3.11 (linux/in.h, linux/in6.h).
IP_FREEBIND = 15
IP_UNICAST_IF = 50
IPV6_FREEBIND = 78
IPV6_UNICAST_IF = 76


class MediaPort:
    """A socket at one own address and port, open while anything arrives at it or leaves from it."""

    __slots__ = ("ifindex", "key", "sock", "users")

    def __init__(self, key: FlowKey) -> None:
        self.key = key
        self.users = 0
        self.ifindex = 0
        six = ":" in key.host
        self.sock = socket.socket(
            socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        try:
            # The address may come and go with its uplink, the socket stays.
            if six:
                self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                self.sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            else:
                self.sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            self.sock.bind((key.host, key.port))
        except OSError as error:
            self.sock.close()
            raise OSError(error.errno, f"media port {key.host}:{key.port}: {error.strerror}") from None

    def leave_by(self, ifindex: int) -> None:
        """Send by this interface (0: by the routing table).

        Not SO_BINDTODEVICE: that would also refuse what arrives by another interface, and could not be changed later
        without CAP_NET_RAW.
        """
        if ifindex == self.ifindex:
            return
        value = struct.pack("!I", ifindex)
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(socket.IPPROTO_IPV6, IPV6_UNICAST_IF, value)
        else:
            self.sock.setsockopt(socket.IPPROTO_IP, IP_UNICAST_IF, value)
        self.ifindex = ifindex


def is_own(host: str) -> bool:
    """Whether this is an address of this host: only such a one can be bound."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.bind((host, 0))
        except OSError:
            return False
    return True
