"""What stands where, as data; and the world built from it, whose links can be cut and mended.

    with World(one_gateway(), directory) as world:
        phone = world.host("mn").popen(["baresip", "-f", "…"])
        cut_at = world.cut("uplink1", how="carrier")
        world.restore("uplink1")

`one_gateway` is the (n,1) case of the drafts: a LAN of phones behind one gateway with two uplinks, each through a
delay line of its own to the internet, where the home server and the correspondents are.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from sipnemo.lab.delay import Message, read_messages
from sipnemo.lab.line import DelayLine, Direction, Quality, start_tap
from sipnemo.lab.namespace import Namespace, Sandbox

How = Literal["carrier", "address", "silent"]
WIRE = "wire"
WAYS: tuple[Direction, ...] = ("up", "down")


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a host."""

    gateway: str
    device: str
    dst: str = "default"
    metric: int = 0
    "Told apart by it when several routes have the same destination; 0 leaves it to the kernel."


@dataclass(frozen=True, slots=True)
class Host:
    """One machine."""

    name: str
    routes: tuple[Route, ...] = ()
    sysctls: dict[str, int | str] = field(default_factory=dict)
    "For example {'net/ipv4/ip_forward': 1}."

    files: dict[str, str] = field(default_factory=dict)
    "Files seen in the place of others: {'/etc/hosts': '/tmp/hosts'}."


@dataclass(frozen=True, slots=True)
class Port:
    """One network interface of a host on a segment."""

    host: str
    device: str
    addresses: tuple[str, ...]
    "With prefix length, IPv4 or IPv6."


@dataclass(frozen=True, slots=True)
class Segment:
    """What ports are plugged into: an Ethernet switch, or, with a quality, a long line between two ports.

    The first port of a line is its inside: "up" is away from it, and a cut is felt there.
    """

    name: str
    ports: tuple[Port, ...]
    quality: Quality | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """Hosts and what joins them."""

    hosts: tuple[Host, ...]
    segments: tuple[Segment, ...]

    def address(self, host: str, device: str = "") -> str:
        """The first address of a host (on that device), without prefix length."""
        for segment in self.segments:
            for port in segment.ports:
                if port.host == host and device in ("", port.device) and port.addresses:
                    return port.addresses[0].partition("/")[0]
        raise LookupError(f"{host} has no address on {device or 'any device'}")


def ipv4_only(topology: Topology) -> Topology:
    """The same without IPv6 addresses and routes."""
    return Topology(
        tuple(replace(h, routes=tuple(r for r in h.routes if ":" not in r.gateway)) for h in topology.hosts),
        tuple(
            replace(
                s, ports=tuple(replace(p, addresses=tuple(a for a in p.addresses if ":" not in a)) for p in s.ports)
            )
            for s in topology.segments
        ),
    )


def one_gateway(quality: Quality = Quality()) -> Topology:  # noqa: B008 - frozen
    """The demo's world: phones `mn`, gateway `nms`, router `internet`, home server `hs`, correspondents `cn`."""
    return gateway_with({1: quality, 2: quality})


def gateway_with(uplinks: Mapping[int, Quality]) -> Topology:
    """The demo's world with any uplinks: number N is device `wanN` on line `uplinkN`, first choice the lowest N."""
    keep: dict[str, int | str] = {"net/ipv6/conf/all/keep_addr_on_down": 1}
    tolerant: dict[str, int | str] = {"net/ipv4/conf/all/rp_filter": 0, "net/ipv4/conf/default/rp_filter": 0}
    router: dict[str, int | str] = {**tolerant, "net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1}
    outside = (Route("192.0.2.1", "eth0"), Route("2001:db8::1", "eth0", dst="::/0"))
    ways_out = [
        route
        for n in uplinks
        for route in (
            Route(f"{uplink_net(n)}.1", f"wan{n}", metric=100 + n),
            Route(f"2001:db8:{n}::1", f"wan{n}", dst="::/0", metric=100 + n),
        )
    ]
    lines = [
        Segment(
            f"uplink{n}",
            (
                Port("nms", f"wan{n}", uplink_addresses(n)),
                Port("internet", f"up{n}", (f"{uplink_net(n)}.1/24", f"2001:db8:{n}::1/64")),
            ),
            quality,
        )
        for n, quality in uplinks.items()
    ]
    return Topology(
        hosts=(
            Host("mn", routes=(Route("10.7.0.1", "eth0"), Route("fd07::1", "eth0", dst="::/0"))),
            Host("nms", routes=tuple(ways_out), sysctls=tolerant | keep),
            Host("internet", sysctls=router),
            Host("hs", routes=outside),
            Host("cn", routes=outside),
        ),
        segments=(
            Segment(
                "lan",
                (
                    Port("nms", "lan0", ("10.7.0.1/24", "fd07::1/64")),
                    Port("mn", "eth0", ("10.7.0.11/24", "fd07::11/64")),
                ),
            ),
            *lines,
            Segment(
                "outside",
                (
                    Port("internet", "eth0", ("192.0.2.1/24", "2001:db8::1/64")),
                    Port("hs", "eth0", ("192.0.2.10/24", "2001:db8::10/64")),
                    Port("cn", "eth0", ("192.0.2.20/24", "2001:db8::20/64")),
                ),
            ),
        ),
    )


def uplink_net(number: int) -> str:
    """The first three octets of an uplink's IPv4 addresses."""
    return {1: "198.51.100", 2: "203.0.113"}.get(number, f"198.18.{number}")


def uplink_addresses(number: int, host: int = 7) -> tuple[str, ...]:
    """What a gateway may be called on an uplink, IPv4 and IPv6, with prefix length."""
    return f"{uplink_net(number)}.{host}/24", f"2001:db8:{number}::{host}/64"


class World:
    """A topology, running. A context manager: leaving it ends every process and removes everything."""

    def __init__(self, topology: Topology, record: Path | None = None) -> None:
        """Build it. With `record`, an existing directory, the lines write what passes them there."""
        self.topology = topology
        self.lines: dict[str, DelayLine] = {}
        self._record = record
        self._tapped: list[str] = []
        self._cut: dict[str, How] = {}
        self._hosts = {host.name: host for host in topology.hosts}
        self._segments = {segment.name: segment for segment in topology.segments}
        self._addresses = {segment.name: segment.ports[0].addresses for segment in topology.segments}
        with ExitStack() as stack:
            self.sandbox = stack.enter_context(Sandbox())
            self._build()
            self._stack = stack.pop_all()

    def host(self, name: str) -> Namespace:
        """A host to run programs in."""
        return self.sandbox.hosts[name]

    def line(self, name: str) -> DelayLine:
        """A line to change the quality of, or to read the recording of."""
        return self.lines[name]

    def cut(self, name: str, how: How, way: Direction | None = None) -> float:
        """Break a line: unplugged, its inside address lost, or packets vanishing in silence (one way only, or both).

        Returns when.
        """
        if name in self._cut:
            raise ValueError(f"{name} is already cut ({self._cut[name]})")
        self._cut[name] = how
        match how:
            case "carrier":
                return self.host(WIRE).set_link(f"{name}.0", up=False)
            case "address":
                inside = self._inside(name)
                return max([self.host(inside.host).remove_address(inside.device, a) for a in self._addresses[name]])
            case "silent":
                return self.line(name).set(way, black_hole=True)

    def restore(self, name: str) -> float:
        """Mend what `cut` broke. Returns when."""
        match self._cut.pop(name):
            case "carrier":
                return self.host(WIRE).set_link(f"{name}.0", up=True)
            case "address":
                return self._add_addresses(name)
            case "silent":
                return self.line(name).set(black_hole=False)

    def renumber(self, name: str, *addresses: str) -> float:
        """Give the inside of a line other addresses (roaming): the old ones go, then the new ones come."""
        at = self.cut(name, "address")
        self._addresses[name] = addresses
        self.restore(name)
        return at

    def messages(self) -> dict[str, list[Message]]:
        """Every SIP message recorded so far, by where it was seen: a line and direction, or a port of a switch."""
        if self._record is None:
            raise ValueError("this world does not record")
        seen = {f"{name}.{way}": line.messages(way) for name, line in self.lines.items() for way in WAYS}
        return seen | {port: read_messages(str(self._record / f"tap.{port}")) for port in self._tapped}

    def close(self) -> None:
        """End everything. Closing twice is harmless."""
        self._stack.close()

    def _build(self) -> None:
        wire = self.sandbox.host(WIRE)
        for host in self.topology.hosts:
            made = self.sandbox.host(host.name, files=host.files)
            for name, value in host.sysctls.items():
                made.set_sysctl(name, value)
        for segment in self.topology.segments:
            ends = [f"{segment.name}.{number}" for number in range(len(segment.ports))]
            for port, end in zip(segment.ports, ends, strict=True):
                self.sandbox.cable(self.host(port.host), port.device, wire, end)
                for address in port.addresses:
                    self.host(port.host).add_address(port.device, address)
            if segment.quality is None:
                wire.bridge(f"{segment.name}.b", ends)
                self._tapped += ends
            else:
                wanted = self._record / segment.name if self._record else None
                self.lines[segment.name] = DelayLine(wire, ends[0], ends[1], segment.quality, wanted)
        for host in self.topology.hosts:
            self._add_routes(host)
        if self._record:
            start_tap(wire, self._tapped, self._record / "tap")

    def _add_routes(self, host: Host, device: str = "", families: tuple[bool, ...] = (False, True)) -> None:
        for route in host.routes:
            if device in ("", route.device) and (":" in route.gateway) in families:
                extra = {"metric": route.metric} if route.metric else {}
                words = {"dst": route.dst, "gateway": route.gateway, "device": route.device} | extra
                self.host(host.name).add_route(**words)

    def _add_addresses(self, name: str) -> float:
        inside = self._inside(name)
        at = max([self.host(inside.host).add_address(inside.device, address) for address in self._addresses[name]])
        families = tuple(":" in address for address in self._addresses[name])
        self._add_routes(self._hosts[inside.host], inside.device, families)
        return at

    def _inside(self, name: str) -> Port:
        return self._segments[name].ports[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
