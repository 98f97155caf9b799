"""Policy routing for the uplinks: every packet leaves by the interface its source address belongs to.

For each path, that is each address S of an uplink X, there is a rule `from S lookup N`, and in table N what the main
table says about X (with S as source), a default route through X's gateway, and `unreachable default metric 9999`: when
X's route vanishes, packets must fail instead of leaving by another uplink with the wrong address.

`UplinkRoutes` keeps that (`manage_routes = true`); `check_routes.py` says what a host that keeps its own lacks.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sipnemo.roles.node import Link
from sipnemo.shell.netlink import NETLINK_ROUTE, Netlink, NetlinkError
from sipnemo.shell.route_tables import (
    RT_TABLE_MAIN,
    RTM_DELROUTE,
    RTM_DELRULE,
    RTM_NEWROUTE,
    RTM_NEWRULE,
    RTNH_F_ONLINK,
    Route,
    Rule,
    family_of,
    own_routes,
    own_rules,
    routes_of,
    words,
    write_route,
    write_rule,
)
from sipnemo.shell.shared_networks import answer_for_itself, answers_for_others, shared_networks

logger = logging.getLogger("sipnemo.shell")

FIRST_TABLE = 7060
"Tables from this number on are ours, and so are the rules that lead to them."

RULE_PRIORITY = 7060
"Before the main table (32766)."

METRIC = 100
LAST_METRIC = 9999


class UplinkPath(NamedTuple):
    """One address of one uplink."""

    device: str
    source: str
    gateway: str = ""
    "Next hop from the configuration; empty: what the main table says."


def paths_of(
    links: Iterable[Link], uplinks: Container[str], gateways: Mapping[str, Sequence[str]]
) -> Iterator[UplinkPath]:
    """Every path there is. `uplinks`: interface names or own addresses; `gateways`: next hops of the same."""
    for link in links:
        for address in link.addresses:
            if link.name in uplinks or address in uplinks:
                configured = [*gateways.get(address, ()), *gateways.get(link.name, ())]
                same = [gateway for gateway in configured if family_of(gateway) == family_of(address)]
                yield UplinkPath(link.name, address, same[0] if same else "")


class UplinkRoutes:
    """Keeps the rules and tables of all uplinks in step with links, addresses and the main table."""

    def __init__(self, uplinks: Iterable[str], gateways: Mapping[str, Sequence[str]] | None = None) -> None:
        """`uplinks`: interface names or own addresses; `gateways`: next hops per interface or own address."""
        self._uplinks = frozenset(uplinks)
        self._gateways = gateways or {}
        self._links: dict[str, Link] = {}
        self._tables: dict[UplinkPath, int] = {}
        self._without_gateway: set[UplinkPath] = set()
        self._netlink = Netlink(NETLINK_ROUTE)
        self._refused = False
        self._not_separated: set[str] = set()
        "Interfaces whose ARP settings could not be changed; said once."

    def link_changed(self, link: Link) -> None:
        """Take in the state of an interface, and write what follows from it."""
        if link.ifindex:
            before = self._links.get(link.name)
            self._links[link.name] = link
            if before is None or before.ifindex != link.ifindex:
                self._keep_addresses(link.name)
        else:
            self._links.pop(link.name, None)
        self.apply()

    def apply(self) -> None:
        """Bring the kernel's tables and rules to what they should be; writes nothing when they are."""
        if self._refused:
            return
        try:
            self._apply()
        except NetlinkError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                self._refused = True
                logger.error(
                    "Routes cannot be managed: %s. Give the service CAP_NET_ADMIN (AmbientCapabilities=CAP_NET_ADMIN "
                    "in the unit), or set manage_routes = false and keep the routes yourself",
                    error.strerror,
                )
            else:
                logger.warning("Routes of the uplinks are not complete: %s", error.strerror)

    def close(self) -> None:
        """Take away every rule and route of ours."""
        self._links.clear()
        self.apply()
        self._netlink.close()

    def _apply(self) -> None:
        paths = list(paths_of(self._links.values(), self._uplinks, self._gateways))
        for gone in self._tables.keys() - set(paths):
            del self._tables[gone]
        rules: set[Rule] = set()
        routes: set[Route] = set()
        main = list(routes_of(self._netlink, RT_TABLE_MAIN)) if paths else []
        self._separate(main, {self._links[path.device].ifindex: path.device for path in paths})
        for path in paths:
            table = self._table(path)
            rules.add(Rule(path.source, table))
            routes.update(self._wanted(path, table, main))
        # Routes come before the rules that lead to them, and leave after them.
        have_rules = set(own_rules(self._netlink))
        have_routes = set(own_routes(self._netlink))
        for rule in have_rules - rules:
            write_rule(self._netlink, RTM_DELRULE, rule, RULE_PRIORITY)
        for route in sorted(have_routes - routes):
            with contextlib.suppress(NetlinkError):
                write_route(self._netlink, RTM_DELROUTE, route)
        for route in sorted(routes - have_routes, key=lambda route: bool(route.gateway)):
            self._add_route(route)
        for rule in rules - have_rules:
            write_rule(self._netlink, RTM_NEWRULE, rule, RULE_PRIORITY)

    def _separate(self, main: list[Route], devices: Mapping[int, str]) -> None:
        for prefix, ifindexes in shared_networks(main, devices).items():
            for device in [devices[ifindex] for ifindex in ifindexes]:
                if not answers_for_others(device) or device in self._not_separated:
                    continue
                try:
                    answer_for_itself(device)
                    logger.info("%s is in %s with another uplink: it answers ARP for itself only now", device, prefix)
                except OSError as error:
                    self._not_separated.add(device)
                    logger.warning(
                        "%s is in %s with another uplink and answers ARP for it: %s. Mend it with: "
                        "sysctl -w net.ipv4.conf.%s.arp_ignore=1",
                        device,
                        prefix,
                        error.strerror,
                        device,
                    )

    def _wanted(self, path: UplinkPath, table: int, main: list[Route]) -> Iterator[Route]:
        link = self._links[path.device]
        default = "::/0" if ":" in path.source else "0.0.0.0/0"
        mine = [
            route for route in main if route.ifindex == link.ifindex and family_of(route.prefix) == family_of(default)
        ]
        yield Route(table, default, "", 0, "", LAST_METRIC, unreachable=True)
        for route in mine:
            if route.prefix != default and not route.prefix.startswith("fe80:"):
                yield Route(table, route.prefix, route.gateway, link.ifindex, path.source, METRIC)
        defaults = sorted((route for route in mine if route.prefix == default), key=lambda route: route.metric)
        if path.gateway or defaults:
            gateway = path.gateway or defaults[0].gateway
            yield Route(table, default, gateway, link.ifindex, path.source, METRIC)
            self._without_gateway.discard(path)
        elif link.up and path not in self._without_gateway:
            self._without_gateway.add(path)
            logger.warning(
                "No gateway is known for %s (%s): the main table has no default route through it. Add one "
                "('ip route add default via GATEWAY dev %s metric 500') or set gateway in its [[eface]]",
                path.device,
                path.source,
                path.device,
            )

    def _table(self, path: UplinkPath) -> int:
        if path not in self._tables:
            taken = set(self._tables.values())
            self._tables[path] = next(
                number for number in range(FIRST_TABLE, FIRST_TABLE + len(taken) + 1) if number not in taken
            )
        return self._tables[path]

    def _add_route(self, route: Route) -> None:
        try:
            try:
                write_route(self._netlink, RTM_NEWROUTE, route)
            except NetlinkError as error:
                # The gateway is in no connected network (an address with /32, say): it is a neighbour all the same.
                if not route.gateway or error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL):
                    raise
                write_route(self._netlink, RTM_NEWROUTE, route, RTNH_F_ONLINK)
        except NetlinkError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                raise
            # The link is down: the kernel takes the route when it is up, and tells of that.
            if error.errno not in (errno.EEXIST, errno.ENETDOWN, errno.ENODEV):
                logger.warning("Route %s is not there: %s", words(route), error.strerror)

    @staticmethod
    def _keep_addresses(device: str) -> None:
        # Else IPv6 addresses are deleted when the link goes down, and do not come back.
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{device}/keep_addr_on_down").write_text("1")
