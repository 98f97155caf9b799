"""Next hops: which neighbour a packet with a given source address and egress interface is handed to."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from sipnemo.shell.netlink import Netlink, NetlinkError, attributes

RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWRULE, RTM_GETRULE = 32, 34
RTN_UNICAST = 1
RTNH_F_DEAD = 1
RT_TABLE_MAIN = 254
FR_ACT_TO_TBL = 1
MOST_HOPS = 32
"More prefixes than these on one path are left to the kernel's own routing."

_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_NEXT_HOP = struct.Struct("=HBBI")  # struct rtnexthop

Network = IPv4Network | IPv6Network


class Hop(NamedTuple):
    """What is in this prefix is reached through this interface and neighbour."""

    prefix: Network

    ifindex: int

    gateway: str
    "Empty: the destination is itself the neighbour (on-link)."


class Route(NamedTuple):
    """One route of one table."""

    table: int
    metric: int
    hop: Hop


class Rule(NamedTuple):
    """One policy-routing rule that asks for no more than a source."""

    order: int

    source: Network | None
    "None: every packet."

    table: int


class Routes:
    """A snapshot of the host's routing tables, rules and addresses."""

    def __init__(self, routes: Iterable[Route], rules: Iterable[Rule], addresses: dict[str, int]) -> None:
        self._routes = list(routes)
        self._rules = sorted(rules, key=lambda rule: rule.order)
        self.addresses = addresses
        "Own address → ifindex."

    @classmethod
    def read(cls, netlink: Netlink) -> Routes:
        """Ask the kernel."""
        routes: list[Route] = []
        rules: list[Rule] = []
        addresses: dict[str, int] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            header = _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            try:
                for message in netlink.query(RTM_GETROUTE, header, "reading routes"):
                    if message.type == RTM_NEWROUTE:
                        routes.extend(_read_route(message.body))
                for message in netlink.query(RTM_GETRULE, header, "reading routing rules"):
                    if message.type == RTM_NEWRULE:
                        rules.extend(_read_rule(message.body))
                for message in netlink.query(RTM_GETADDR, _ADDRESS.pack(family, 0, 0, 0, 0), "reading addresses"):
                    if message.type == RTM_NEWADDR:
                        addresses.update(_read_address(message.body))
            except NetlinkError:
                if family == socket.AF_INET:  # a kernel without IPv6 has no such tables
                    raise
        return cls(routes, rules, addresses)

    def hops(self, source: str, device: str) -> tuple[Hop, ...]:
        """The next hops of packets from `source` that leave by `device` ("": by whatever the rules say), best first.

        Longest prefix first, one hop per prefix. Empty: nothing can leave that way. With a device, routes of the table
        that the rules choose for the source come first, but those of other tables through this device are used too:
        the device is meant, and an uplink's next hops are the same in every table.
        """
        own = ip_address(source)
        tables = self._tables(source)
        if device:
            try:
                wanted = socket.if_nametoindex(device)
            except OSError:
                return ()
        else:
            wanted = 0
        ranked: dict[Network, tuple[tuple[int, int], Hop]] = {}
        for route in self._routes:
            hop = route.hop
            if hop.prefix.version != own.version or (wanted and hop.ifindex != wanted):
                continue
            if route.table in tables:
                place = tables.index(route.table)
            elif wanted:
                place = len(tables)
            else:
                continue
            rank = (place, route.metric)
            if hop.prefix not in ranked or rank < ranked[hop.prefix][0]:
                ranked[hop.prefix] = (rank, hop)
        hops = sorted((hop for _rank, hop in ranked.values()), key=lambda hop: -hop.prefix.prefixlen)
        return tuple(_without_needless(hops)[:MOST_HOPS])

    def _tables(self, source: str) -> list[int]:
        """The tables that packets from this source are looked up in, in order."""
        own = ip_address(source)
        found = [
            rule.table
            for rule in self._rules
            if rule.source is None or (rule.source.version == own.version and own in rule.source)
        ]
        return list(dict.fromkeys([*found, RT_TABLE_MAIN]))


def next_hop(hops: Iterable[Hop], destination: str) -> Hop | None:
    """The hop for a destination, or None when no prefix covers it."""
    wanted = ip_address(destination)
    for hop in hops:
        if hop.prefix.version == wanted.version and wanted in hop.prefix:
            return hop
    return None


def _without_needless(hops: list[Hop]) -> list[Hop]:
    """Leave out a prefix that the next wider one would send the same way."""
    kept: list[Hop] = []
    for place, hop in enumerate(hops):
        wider = next((other for other in hops[place + 1 :] if _covers(other.prefix, hop.prefix)), None)
        if wider is None or wider[1:] != hop[1:]:
            kept.append(hop)
    return kept


def _covers(wide: Network, narrow: Network) -> bool:
    return wide.prefixlen <= narrow.prefixlen and narrow.network_address in wide


def _read_route(body: bytes) -> Iterable[Route]:
    family, length, _source, _tos, table, _protocol, _scope, kind, flags = _ROUTE.unpack_from(body)
    found = dict(attributes(body, _ROUTE.size))
    if kind != RTN_UNICAST or flags & RTNH_F_DEAD:
        return
    width = 16 if family == socket.AF_INET6 else 4
    prefix = ip_network((found.get(1) or bytes(width), length))  # RTA_DST
    if prefix.is_multicast or (prefix.is_link_local and width == 16):
        return
    table = _number(found.get(15), table)  # RTA_TABLE
    metric = _number(found.get(6), 0)  # RTA_PRIORITY
    if several := found.get(9):  # RTA_MULTIPATH
        offset = 0
        while offset + _NEXT_HOP.size <= len(several):
            size, hop_flags, _hops, ifindex = _NEXT_HOP.unpack_from(several, offset)
            if size < _NEXT_HOP.size:
                return
            members = dict(attributes(several[offset + _NEXT_HOP.size : offset + size]))
            if not hop_flags & RTNH_F_DEAD:
                yield Route(table, metric, Hop(prefix, ifindex, _gateway(members)))
            offset += (size + 3) & ~3
    elif 4 in found and 18 not in found:  # RTA_OIF; an RTA_VIA gateway of the other family is left to the kernel
        yield Route(table, metric, Hop(prefix, _number(found[4], 0), _gateway(found)))


def _read_address(body: bytes) -> Iterable[tuple[str, int]]:
    _family, _length, _flags, _scope, ifindex = _ADDRESS.unpack_from(body)
    found = dict(attributes(body, _ADDRESS.size))
    if octets := found.get(2) or found.get(1):  # IFA_LOCAL, IFA_ADDRESS
        yield str(ip_address(octets)), ifindex


def _gateway(members: dict[int, bytes]) -> str:
    octets = members.get(5)  # RTA_GATEWAY
    return str(ip_address(octets)) if octets else ""


def _read_rule(body: bytes) -> Iterable[Rule]:
    _family, _to, length, _tos, table, _r1, _r2, action, _flags = _ROUTE.unpack_from(body)
    found = dict(attributes(body, _ROUTE.size))
    if action != FR_ACT_TO_TBL or any(kind in found for kind in (1, 3, 10, 17)):  # FRA_DST, IIFNAME, FWMARK, OIFNAME
        return
    source = ip_network((found[2], length)) if 2 in found else None  # FRA_SRC
    yield Rule(_number(found.get(6), 0), source, _number(found.get(15), table))


def _number(octets: bytes | None, otherwise: int) -> int:
    return struct.unpack("=I", octets[:4])[0] if octets else otherwise
