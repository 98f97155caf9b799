"""Routes and rules as rtnetlink puts them: read a table, write one route, follow a lookup.

Synchronous on purpose: the kernel answers before `send` returns, so a path's routes are in place before the node
hears of the path. pyroute2's synchronous half does not run inside an event loop.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from sipnemo.shell.netlink import NLM_F_CREATE, NLM_F_DUMP, Netlink, NetlinkError, attribute, attributes

PROTOCOL = 170
"Marks routes and rules as ours (`proto 170`), so that what a killed process left behind is found."

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34
RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_MULTIPATH, RTA_TABLE = 1, 2, 4, 5, 6, 7, 9, 15
FRA_SRC, FRA_PRIORITY, FRA_TABLE, FRA_PROTOCOL = 2, 6, 15, 21
RTN_UNICAST, RTN_UNREACHABLE = 1, 7
RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTNH_F_ONLINK = 4
FR_ACT_TO_TBL = 1
NLM_F_EXCL = 0x200

_MESSAGE = struct.Struct("=BBBBBBBBI")  # struct rtmsg and struct fib_rule_hdr
_NEXT_HOP = struct.Struct("=HBBi")  # struct rtnexthop


class Route(NamedTuple):
    """One route of one of the tables, as far as it matters here."""

    table: int
    prefix: str
    "Network in CIDR notation."

    gateway: str
    ifindex: int
    source: str
    metric: int
    unreachable: bool = False


class Rule(NamedTuple):
    """`from source lookup table`."""

    source: str
    table: int


def routes_of(netlink: Netlink, table: int) -> Iterator[Route]:
    """The unicast routes of one table; a multipath route comes once per next hop."""
    for route in _dump(netlink, table, 0):
        if route.table == table and not route.unreachable:
            yield route


def own_routes(netlink: Netlink) -> Iterator[Route]:
    """Every route of ours, in whatever table."""
    return _dump(netlink, 0, PROTOCOL)


def _dump(netlink: Netlink, table: int, protocol: int) -> Iterator[Route]:
    for family in (socket.AF_INET, socket.AF_INET6):
        body = _MESSAGE.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0) + (_u32(RTA_TABLE, table) if table else b"")
        try:
            answers = netlink.query(RTM_GETROUTE, body, "reading routes", NLM_F_DUMP)
        except NetlinkError as error:
            if family == socket.AF_INET6 or error.errno == errno.ENOENT:
                continue  # a kernel without IPv6, or a table without routes
            raise
        for message in answers:
            if message.type == RTM_NEWROUTE:
                for found, route in _read(message.body):
                    # Kernels before 4.20 do not filter for us.
                    if not protocol or found == protocol:
                        yield route


def own_rules(netlink: Netlink) -> Iterator[Rule]:
    """Every rule of ours."""
    for family in (socket.AF_INET, socket.AF_INET6):
        body = _MESSAGE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
        try:
            answers = netlink.query(RTM_GETRULE, body, "reading rules", NLM_F_DUMP)
        except NetlinkError:
            if family == socket.AF_INET:
                raise
            continue
        for message in answers:
            values = dict(attributes(message.body, _MESSAGE.size))
            if message.type == RTM_NEWRULE and values.get(FRA_PROTOCOL) == bytes([PROTOCOL]) and FRA_SRC in values:
                yield Rule(socket.inet_ntop(family, values[FRA_SRC]), _number(values[FRA_TABLE]))


def _read(body: bytes) -> Iterator[tuple[int, Route]]:
    """The routes in one answer, each with its protocol; several when it is a multipath route."""
    family, length, _source_length, _tos, table, protocol, _scope, kind, _flags = _MESSAGE.unpack_from(body)
    if kind not in (RTN_UNICAST, RTN_UNREACHABLE) or family not in (socket.AF_INET, socket.AF_INET6):
        return
    values = dict(attributes(body, _MESSAGE.size))
    unspecified = bytes(4 if family == socket.AF_INET else 16)
    destination = socket.inet_ntop(family, values.get(RTA_DST, unspecified))
    source = socket.inet_ntop(family, values[RTA_PREFSRC]) if RTA_PREFSRC in values else ""
    table = _number(values[RTA_TABLE]) if RTA_TABLE in values else table
    metric = _number(values[RTA_PRIORITY]) if RTA_PRIORITY in values else 0
    prefix = f"{destination}/{length}"
    if kind == RTN_UNREACHABLE:
        yield protocol, Route(table, prefix, "", 0, "", metric, unreachable=True)
        return
    for ifindex, gateway in _hops(family, values):
        yield protocol, Route(table, prefix, gateway, ifindex, source, metric)


def _hops(family: int, values: dict[int, bytes]) -> Iterator[tuple[int, str]]:
    if RTA_OIF in values:
        yield _number(values[RTA_OIF]), _text(family, values.get(RTA_GATEWAY))
    hops = values.get(RTA_MULTIPATH, b"")
    while len(hops) >= _NEXT_HOP.size:
        length, _flags, _weight, ifindex = _NEXT_HOP.unpack_from(hops)
        if length < _NEXT_HOP.size:
            return
        yield ifindex, _text(family, dict(attributes(hops[:length], _NEXT_HOP.size)).get(RTA_GATEWAY))
        hops = hops[(length + 3) & ~3 :]


def write_rule(netlink: Netlink, kind: int, rule: Rule, priority: int) -> None:
    """Add (RTM_NEWRULE) or remove (RTM_DELRULE) a rule; raises NetlinkError."""
    family, packed = _packed(rule.source)
    body = _MESSAGE.pack(family, 0, len(packed) * 8, 0, 0, 0, 0, FR_ACT_TO_TBL, 0)
    body += attribute(FRA_SRC, packed) + _u32(FRA_TABLE, rule.table) + _u32(FRA_PRIORITY, priority)
    body += attribute(FRA_PROTOCOL, bytes([PROTOCOL]))
    flags = NLM_F_CREATE | NLM_F_EXCL if kind == RTM_NEWRULE else 0
    try:
        netlink.query(kind, body, f"rule from {rule.source} lookup {rule.table}", flags)
    except NetlinkError as error:
        if error.errno not in (errno.EEXIST, errno.ENOENT):
            raise


def write_route(netlink: Netlink, kind: int, route: Route, flags: int = 0) -> None:
    """Add (RTM_NEWROUTE) or remove (RTM_DELROUTE) a route; raises NetlinkError."""
    network = ipaddress.ip_network(route.prefix)
    family, packed = _packed(str(network.network_address))
    scope = RT_SCOPE_LINK if family == socket.AF_INET and not route.gateway and not route.unreachable else 0
    type_ = RTN_UNREACHABLE if route.unreachable else RTN_UNICAST
    body = _MESSAGE.pack(family, network.prefixlen, 0, 0, 0, PROTOCOL, scope, type_, flags)
    body += _u32(RTA_TABLE, route.table) + _u32(RTA_PRIORITY, route.metric)
    if network.prefixlen:
        body += attribute(RTA_DST, packed)
    if route.gateway:
        body += attribute(RTA_GATEWAY, _packed(route.gateway)[1])
    if route.ifindex:
        body += _u32(RTA_OIF, route.ifindex)
    if route.source:
        body += attribute(RTA_PREFSRC, _packed(route.source)[1])
    netlink.query(kind, body, words(route), NLM_F_CREATE | NLM_F_EXCL if kind == RTM_NEWROUTE else 0)


def words(route: Route) -> str:
    """The route as `ip route` would show it."""
    via = f" via {route.gateway}" if route.gateway else ""
    return f"{'unreachable ' if route.unreachable else ''}{route.prefix}{via} table {route.table}"


def _packed(address: str) -> tuple[int, bytes]:
    family = family_of(address)
    return family, socket.inet_pton(family, address)


def family_of(address: str) -> int:
    """The address family of a literal or prefix."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _text(family: int, packed: bytes | None) -> str:
    return "" if packed is None else socket.inet_ntop(family, packed)


def _u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _number(value: bytes) -> int:
    return int(struct.unpack("=I", value)[0])


def lookup(netlink: Netlink, source: str, destination: str) -> Route | None:
    """The route the kernel takes for a packet between these addresses; raises NetlinkError when there is none."""
    family, packed = _packed(destination)
    bits = len(packed) * 8
    body = _MESSAGE.pack(family, bits, bits, 0, 0, 0, 0, 0, 0)
    body += attribute(RTA_DST, packed) + attribute(RTA_SRC, _packed(source)[1])
    for message in netlink.query(RTM_GETROUTE, body, f"route to {destination} from {source}", 0):
        for _protocol, route in _read(message.body):
            return route
    return None
