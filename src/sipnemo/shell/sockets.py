"""Socket options that UDP, TCP and TLS share: which address and device a socket belongs to, and literals."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket

logger = logging.getLogger("sipnemo.shell")

# Absent from the socket module of Python 3.11 (linux/in.h, linux/in6.h).
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_DONT = 0
IP_RECVERR = 11
IPV6_RECVERR = 25
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32

_devices_refused: set[str] = set()


def open_socket(kind: socket.SocketKind, host: str, device: str) -> socket.socket:
    """A non-blocking socket of the literal's family, bound to the device but not yet to an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if device:
            bind_to_device(sock, device)
    except OSError:
        sock.close()
        raise
    return sock


def bind_to_device(sock: socket.socket, device: str) -> None:
    """Let packets leave and arrive by this interface only; where that is refused, routing decides (said once)."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
    except PermissionError:
        # Kernels before 5.7 want CAP_NET_RAW for it.
        if device not in _devices_refused:
            _devices_refused.add(device)
            logger.warning(
                "The kernel does not let this process bind sockets to %s; its packets leave by the routing table. "
                "Give it CAP_NET_RAW (AmbientCapabilities=CAP_NET_RAW in the unit) or make sure of a rule "
                "'from <own address>' for this uplink",
                device,
            )


def set_buffer(sock: socket.socket, force: int, option: int, size: int) -> int:
    """Ask for a kernel buffer of this many octets, beyond the system's limit where allowed; returns what it got."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, option, size)
    return sock.getsockopt(socket.SOL_SOCKET, option)


def allow_fragments(sock: socket.socket) -> None:
    """Let datagrams larger than the path's MTU be fragmented instead of refused (RFC 3261 §18.1.1)."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)


def report_errors(sock: socket.socket) -> None:
    """Keep ICMP errors, with the address they are about, in the socket's error queue (ip(7), IP_RECVERR)."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def is_literal(host: str) -> bool:
    """Whether this is an IP address; a name would make the system library ask DNS and block."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def reason(error: OSError) -> str:
    """An operating-system error in words."""
    if error.errno is None:
        return str(error) or type(error).__name__
    return os.strerror(error.errno) if error.errno > 0 else str(error)


def why_not_bound(error: OSError, endpoint: str, port: int) -> str:
    """What an operator does about an address that cannot be listened on."""
    match error.errno:
        case errno.EADDRINUSE:
            return f"{endpoint} is in use by another program: stop it, or give this one another port"
        case errno.EACCES:
            return (
                f"listening on {endpoint} is not permitted: ports below 1024 need CAP_NET_BIND_SERVICE"
                if port < 1024
                else f"listening on {endpoint} is not permitted"
            )
        case errno.EADDRNOTAVAIL:
            return f"{endpoint} cannot be listened on yet: no interface has this address"
        case errno.ENODEV:
            return f"{endpoint} cannot be listened on yet: the interface does not exist"
        case _:
            return f"{endpoint} cannot be listened on: {reason(error)}"


def endpoint(transport: str, host: str, port: int, device: str = "") -> str:
    """A listening point in words."""
    shown = f"[{host}]" if ":" in host else host
    return f"{transport} {shown}:{port}" + (f" on {device}" if device else "")
