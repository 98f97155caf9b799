"""Network interfaces as the kernel tells of them (rtnetlink): one `Link` input at start and on every change.

A plain netlink socket in the event loop: a lost carrier is an input 0.4 ms after the kernel told of it, half of what a
library takes; `carrier.py` notices it when the kernel is slow to tell. When the kernel drops news (ENOBUFS), everything
is asked for anew, so that nothing is missed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sipnemo.roles.node import Link
from sipnemo.shell import sockets
from sipnemo.shell.carrier import CarrierWatch
from sipnemo.shell.netlink import NETLINK_ROUTE, Netlink, attributes

logger = logging.getLogger("sipnemo.shell")

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE = 0x1, 0x10, 0x40
RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE = 0x100, 0x400

IFLA_IFNAME = 3
IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x8, 0x40, 0x10000
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_TEMPORARY, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x01, 0x08, 0x20, 0x40
RT_SCOPE_UNIVERSE, RT_SCOPE_SITE, RT_SCOPE_HOST = 0, 200, 254

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BBHiII")  # struct ifinfomsg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg


@dataclass(slots=True)
class _Device:
    name: str
    flags: int
    addresses: dict[str, bool] = field(default_factory=dict)
    "Address → whether it is usable; in the kernel's order."

    @property
    def up(self) -> bool:
        wanted = IFF_UP | IFF_RUNNING | IFF_LOWER_UP
        return self.flags & wanted == wanted


class Links:
    """Watches the interfaces named, or all but loopback when none is named."""

    def __init__(
        self,
        changed: Callable[[Link], object],
        interfaces: Iterable[str] = (),
        routes_changed: Callable[[], object] = lambda: None,
    ) -> None:
        self._changed = changed
        self._routes_changed = routes_changed
        self._named = tuple(interfaces)
        self._devices: dict[int, _Device] = {}
        self._told: dict[str, Link] = {}
        self._socket: socket.socket | None = None
        self._carriers: CarrierWatch | None = None

    def start(self) -> None:
        """Tell of every interface now, and of every change from now on."""
        sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, NETLINK_ROUTE
        )
        try:
            sockets.set_buffer(sock, sockets.SO_RCVBUFFORCE, socket.SO_RCVBUF, 1 << 20)
            groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
            sock.bind((0, groups))  # before the first question, so that no change falls between
        except OSError:
            sock.close()
            raise
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)
        self._carriers = CarrierWatch(self._carrier_lost)
        self._ask()
        self._tell()

    def close(self) -> None:
        """Tell nothing more."""
        if self._carriers is not None:
            self._carriers.close()
            self._carriers = None
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _carrier_lost(self, index: int) -> None:
        # Asked for once more here: the carrier may be back, and its news taken in, since the other thread looked.
        if self._socket is not None:
            self._ask()
            self._tell()

    def _readable(self) -> None:
        routes = False
        while self._socket is not None:
            try:
                data, sender = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                logger.info("The kernel had more news of interfaces than fit; asking anew")
                self._ask()
                routes = True
                continue
            if sender[0] == 0:  # from the kernel, not from another program
                routes |= self._take(data)
        self._tell()
        if routes:
            self._routes_changed()

    def _take(self, data: bytes) -> bool:
        """Take in messages; whether routes have changed."""
        routes = False
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                break
            self._note(kind, data[offset + _HEADER.size : offset + length])
            routes |= kind in (RTM_NEWROUTE, RTM_DELROUTE)
            offset += (length + 3) & ~3
        return routes

    def _ask(self) -> None:
        """Replace what is known by what the kernel says now."""
        self._devices.clear()
        netlink = Netlink(NETLINK_ROUTE)
        try:
            for message in netlink.query(RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0, 0), "reading interfaces"):
                self._note(*message)
            for message in netlink.query(RTM_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), "reading addresses"):
                self._note(*message)
        finally:
            netlink.close()

    def _note(self, kind: int, body: bytes) -> None:
        if kind in (RTM_NEWLINK, RTM_DELLINK):
            family, _pad, _type, index, flags, _change = _LINK.unpack_from(body)
            if family != socket.AF_UNSPEC:
                return  # a bridge tells about its ports: "deleted" only means "left the bridge"
            if kind == RTM_DELLINK:
                self._devices.pop(index, None)
                return
            name = dict(attributes(body, _LINK.size)).get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
            device = self._devices.setdefault(index, _Device(name, flags))
            device.name, device.flags = name, flags
        elif kind in (RTM_NEWADDR, RTM_DELADDR):
            family, _length, short_flags, scope, index = _ADDRESS.unpack_from(body)
            if index not in self._devices:
                return
            device = self._devices[index]
            values = dict(attributes(body, _ADDRESS.size))
            packed = values.get(IFA_LOCAL) or values.get(IFA_ADDRESS)
            if packed is None or family not in (socket.AF_INET, socket.AF_INET6):
                return
            address = socket.inet_ntop(family, packed)
            if kind == RTM_DELADDR:
                device.addresses.pop(address, None)
            else:
                flags = int.from_bytes(values[IFA_FLAGS], sys.byteorder) if IFA_FLAGS in values else short_flags
                device.addresses[address] = _usable(family, flags, scope, bool(device.flags & IFF_LOOPBACK))

    def _tell(self) -> None:
        now: dict[str, Link] = {}
        for name in self._named:
            now[name] = Link(name, 0, False, ())
        for index, device in self._devices.items():
            if device.name in self._named or (not self._named and not device.flags & IFF_LOOPBACK):
                usable = [address for address, good in device.addresses.items() if good]
                usable.sort(key=lambda address: ":" in address)
                now[device.name] = Link(device.name, index, device.up, tuple(usable))
        for name in self._told.keys() - now.keys():
            now[name] = Link(name, 0, False, ())
        news = [link for name, link in now.items() if self._told.get(name) != link]
        self._told = {name: link for name, link in now.items() if link.ifindex or name in self._named}
        if self._carriers is not None:
            self._carriers.watch(link.ifindex for link in now.values() if link.up)
        for link in news:
            self._changed(link)


def _usable(family: int, flags: int, scope: int, loopback: bool) -> bool:
    if family == socket.AF_INET:
        return scope in (RT_SCOPE_UNIVERSE, RT_SCOPE_SITE) or (loopback and scope == RT_SCOPE_HOST)
    # Temporary (privacy) addresses would make a new path every day beside the stable address of the same prefix.
    bad = IFA_F_TENTATIVE | IFA_F_DEPRECATED | IFA_F_DADFAILED | IFA_F_TEMPORARY
    return not flags & bad and (scope in (RT_SCOPE_UNIVERSE, RT_SCOPE_SITE) or (loopback and scope == RT_SCOPE_HOST))
