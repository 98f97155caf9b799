"""What a host that keeps its own routes lacks for the uplinks, in operators' words."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator

from sipnemo.shell.netlink import NETLINK_ROUTE, Netlink, NetlinkError
from sipnemo.shell.route_tables import RT_TABLE_MAIN, family_of, lookup, routes_of
from sipnemo.shell.shared_networks import answers_for_others, shared_networks
from sipnemo.shell.uplink_routes import FIRST_TABLE, LAST_METRIC, UplinkPath


def check_routes(paths: Iterable[UplinkPath], destination: str) -> list[str]:
    """What is missing so that packets of each path leave by it towards this address; empty when all is well.

    Looks from here only at paths of the destination's family. Every message ends with the commands that mend it.
    """
    messages = []
    paths = list(paths)
    netlink = Netlink(NETLINK_ROUTE)
    try:
        same = [path for path in paths if family_of(path.source) == family_of(destination)]
        for number, path in enumerate(same):
            fault = _fault(netlink, path, destination)
            if fault:
                gateway = path.gateway or _main_gateway(netlink, path) or "GATEWAY"
                ip = "ip -6" if ":" in path.source else "ip"
                table = FIRST_TABLE + number
                messages.append(
                    f"Path {path.device} ({path.source}): {fault}. Mend it with manage_routes = true, or with:\n"
                    f"  {ip} route replace default via {gateway} dev {path.device} src {path.source} table {table}\n"
                    f"  {ip} route replace unreachable default metric {LAST_METRIC} table {table}\n"
                    f"  {ip} rule add from {path.source} lookup {table}"
                )
        messages += _sharing(netlink, paths)
    finally:
        netlink.close()
    return messages


def _sharing(netlink: Netlink, paths: Iterable[UplinkPath]) -> Iterator[str]:
    """What uplinks in one network lack to be told apart by their neighbours."""
    devices: dict[int, str] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            devices[socket.if_nametoindex(path.device)] = path.device
    for prefix, ifindexes in shared_networks(routes_of(netlink, RT_TABLE_MAIN), devices).items():
        careless = [devices[ifindex] for ifindex in ifindexes if answers_for_others(devices[ifindex])]
        if careless:
            commands = "".join(
                f"\n  sysctl -w net.ipv4.conf.{device}.arp_ignore=1 net.ipv4.conf.{device}.arp_announce=2"
                for device in careless
            )
            yield (
                f"Uplinks {' and '.join(devices[ifindex] for ifindex in ifindexes)} are both in {prefix}, and answer "
                f"ARP for each other: when one dies, so does the other. Mend it with manage_routes = true, or with:"
                f"{commands}"
            )


def _fault(netlink: Netlink, path: UplinkPath, destination: str) -> str:
    try:
        ifindex = socket.if_nametoindex(path.device)
    except OSError:
        return ""  # no interface, no path: nothing to route
    try:
        found = lookup(netlink, path.source, destination)
    except NetlinkError as error:
        if error.errno == errno.EINVAL:
            return ""  # the address is not there (any more)
        return f"packets to {destination} have no way out ({error.strerror})"
    if found is None or found.ifindex == ifindex:
        return ""
    try:
        wrong = socket.if_indextoname(found.ifindex)
    except OSError:
        wrong = f"interface {found.ifindex}"
    return f"packets to {destination} leave by {wrong}"


def _main_gateway(netlink: Netlink, path: UplinkPath) -> str:
    with contextlib.suppress(OSError):
        ifindex = socket.if_nametoindex(path.device)
        for route in sorted(routes_of(netlink, RT_TABLE_MAIN), key=lambda route: route.metric):
            default = route.prefix.endswith("/0") and family_of(route.prefix) == family_of(path.source)
            if default and route.ifindex == ifindex and route.gateway:
                return route.gateway
    return ""
