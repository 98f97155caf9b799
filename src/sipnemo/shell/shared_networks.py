"""Two uplinks in one network: each must answer for its own addresses only, or both die with one of them.

Linux answers an ARP request for any of its addresses on whatever interface it comes in. With two interfaces in one
network the neighbours then know one MAC address for both uplinks: what is meant for the second comes in by the first,
where no socket of the second takes it, and is lost when the first is. IPv6 asks for the address on its own interface.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

from sipnemo.shell.route_tables import Route

_CONF = Path("/proc/sys/net/ipv4/conf")


def shared_networks(routes: Iterable[Route], ifindexes: Container[int]) -> dict[str, list[int]]:
    """The directly connected IPv4 networks that several of these interfaces are in, by prefix."""
    found: dict[str, list[int]] = {}
    for route in routes:
        if not route.gateway and ":" not in route.prefix and route.ifindex in ifindexes:
            devices = found.setdefault(route.prefix, [])
            if route.ifindex not in devices and not route.prefix.endswith("/0"):
                devices.append(route.ifindex)
    return {prefix: devices for prefix, devices in found.items() if len(devices) > 1}


def answers_for_others(device: str) -> bool:
    """Whether an interface answers ARP requests for addresses of other interfaces."""
    return max(_value("all", "arp_ignore"), _value(device, "arp_ignore")) == 0 and not (
        _value("all", "arp_filter") or _value(device, "arp_filter")
    )


def answer_for_itself(device: str) -> None:
    """Let an interface answer ARP requests for its own addresses only, and ask with them; may raise OSError."""
    (_CONF / device / "arp_ignore").write_text("1")
    (_CONF / device / "arp_announce").write_text("2")


def _value(device: str, name: str) -> int:
    try:
        return int((_CONF / device / name).read_text())
    except (OSError, ValueError):
        return 0
