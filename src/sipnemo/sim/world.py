"""Whole nodes in a world whose clock we own: gateways, home servers, phones, and uplinks that fail in every way.

Everything that is random comes from the seed, so a story that fails once fails always. `network.py` carries messages,
`rtp.py` media.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

from sipnemo.media.flow import MediaPath
from sipnemo.roles.node import (
    AddFlows,
    Answer,
    Closed,
    Command,
    Count,
    Environment,
    Finished,
    Input,
    Link,
    Listen,
    Log,
    Lookup,
    Node,
    Notice,
    Observe,
    Punch,
    ReadCounters,
    Received,
    RemoveFlows,
    Reply,
    Send,
    SendFailed,
    SetPath,
    Store,
    Stored,
    Tick,
    Unlisten,
)
from sipnemo.roles.phone.media import CloseStream, OpenStream, SetStream
from sipnemo.sim.clock import Clock
from sipnemo.sim.network import Host, Network, Uplink
from sipnemo.sim.rtp import Phones, Plane

STORE_DELAY = 0.004
LOOKUP_DELAY = 0.005
WALL_CLOCK = 1_800_000_000.0
NEVER = float("inf")

Builder = Callable[[Environment], Node]


class Station:
    """One process: its node, and what it has said to the world."""

    def __init__(self, world: World, name: str, build: Builder) -> None:
        self.world = world
        self.name = name
        self.host = Host(name, self._received, self._failed, self._closed)
        self.events: list[tuple[float, str, dict[str, Any]]] = []
        "Notices: when, name, body."
        self.logs: list[tuple[float, Log]] = []
        self.counts: dict[tuple[str, tuple[str, ...]], float] = {}
        self.observed: dict[str, list[float]] = {}
        self.replies: dict[int, Any] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        "The store, as on disk."
        self.finished = False
        self.alive = True
        self.plane: Plane = Plane(world.network, world.phones, self)
        self._build = build
        self._life = 0
        "Which run of the process this is; what was under way for an earlier one does not count."
        self._wake_at = NEVER
        self.node = self._new()

    def _new(self) -> Node:
        self._life += 1
        stored = json.loads(json.dumps(self.rows))
        return self._build(Environment(f"{self.world.seed:08x}{self.name}{self._life}", WALL_CLOCK, stored))

    # ------------------------------------------------------------------------------------------------ the shell

    def handle(self, input: Input | Any) -> None:
        """Give the node an input and perform what follows from it."""
        if not self.alive:
            return
        world = self.world
        now = world.clock.now
        performers = _PERFORMERS
        for action in self.node.handle(input, now):
            performers[type(action)](self, action)
        deadline = self.node.deadline
        if deadline is not None and deadline < self._wake_at:
            self._wake_at = max(deadline, now)
            world.clock.at(self._wake_at, self._wake, self._wake_at, self._life)

    def _wake(self, at: float, life: int) -> None:
        if at == self._wake_at and life == self._life:
            self._wake_at = NEVER
            self.handle(Tick())

    def _received(self, data: bytes, flow: Any) -> None:
        self.handle(Received(data, flow))

    def _failed(self, flow: Any, why: str) -> None:
        self.handle(SendFailed(flow, why))

    def _closed(self, flow: Any) -> None:
        self.handle(Closed(flow))

    def _send(self, action: Send) -> None:
        self.world.network.send(self.host, action.data, action.flow)

    def _listen(self, action: Listen) -> None:
        self.host.listen(action.local)

    def _unlisten(self, action: Unlisten) -> None:
        self.world.clock.after(0.0, self.host.unlisten, action.local)

    def _lookup(self, action: Lookup) -> None:
        records = tuple((action.kind, record) for record in self.world.names.get((action.name, action.kind), ()))
        self.world.clock.after(LOOKUP_DELAY, self._later, Answer(action.ticket, records, 60.0), self._life)

    def _store(self, action: Store) -> None:
        self.world.clock.after(STORE_DELAY, self._write, action, self._life)

    def _write(self, action: Store, life: int) -> None:
        if life != self._life:
            return  # killed before it was durable, and never confirmed
        table = self.rows.setdefault(action.table, {})
        for key, value in action.rows:
            if value is None:
                table.pop(key, None)
            else:
                table[key] = json.loads(json.dumps(value))
        self.handle(Stored(action.ticket))

    def _later(self, input: Input, life: int) -> None:
        if life == self._life:
            self.handle(input)

    def _log(self, action: Log) -> None:
        self.logs.append((self.world.clock.now, action))

    def _count(self, action: Count) -> None:
        key = (action.name, action.labels)
        self.counts[key] = self.counts.get(key, 0.0) + action.amount

    def _observe(self, action: Observe) -> None:
        self.observed.setdefault(action.name, []).append(action.value)

    def _notice(self, action: Notice) -> None:
        self.events.append((self.world.clock.now, action.name, dict(action.body)))

    def _reply(self, action: Reply) -> None:
        self.replies[action.ticket] = json.loads(json.dumps(action.result))

    def _finished(self, action: Finished) -> None:
        self.finished = True

    # ------------------------------------------------------------------------------------------------ for stories

    def notices(self, name: str) -> list[dict[str, Any]]:
        """The bodies of all notices of this name."""
        return [body for _, known, body in self.events if known == name]

    def command(self, name: str, **arguments: Any) -> Any:
        """Give a command; the reply."""
        ticket = next(self.world.tickets)
        self.handle(Command(ticket, name, arguments))
        return self.replies.pop(ticket)

    def kill(self) -> None:
        """kill -9: sockets, connections and what was not stored are gone."""
        self.alive = False
        self._life += 1
        self._wake_at = NEVER
        for local in list(self.host.sockets.values()):
            self.host.unlisten(local)
        for connection in list(self.host.connections.values()):
            connection.end("reset by peer")

    def restart(self) -> None:
        """Start the process again; only what the store holds survives."""
        self.node = self._new()
        self.alive = True
        self.handle(Tick())


_PERFORMERS: dict[type, Callable[[Station, Any], None]] = {
    Send: Station._send,
    Listen: Station._listen,
    Unlisten: Station._unlisten,
    Lookup: Station._lookup,
    Store: Station._store,
    AddFlows: lambda station, action: station.plane.add(action),
    RemoveFlows: lambda station, action: station.plane.remove(action),
    SetPath: lambda station, action: station.plane.set_path(action),
    ReadCounters: lambda station, action: station.plane.read(action),
    Punch: lambda station, action: station.plane.punch(action),
    OpenStream: lambda station, action: station.world.phones.open_stream(station, action),
    SetStream: lambda station, action: station.world.phones.set_stream(station, action),
    CloseStream: lambda station, action: station.world.phones.close_stream(station, action),
    Log: Station._log,
    Count: Station._count,
    Observe: Station._observe,
    Notice: Station._notice,
    Reply: Station._reply,
    Finished: Station._finished,
}


class World:
    """The world."""

    def __init__(self, seed: int = 1, rtp_every: float = 0.02) -> None:
        self.seed = seed
        self.clock = Clock()
        self.network = Network(self.clock, seed)
        self.phones: Phones = Phones(self.network, rtp_every)
        self.names: dict[tuple[str, str], tuple[tuple[Any, ...], ...]] = {}
        "What DNS knows: (name, kind) → records."
        self.stations: dict[str, Station] = {}
        self.tickets = count(1)
        self._ifindex: dict[str, int] = {}
        self._insides: dict[str, tuple[str, str]] = {}
        "Device and address of each gateway's I-face, by name of its station."

    @property
    def now(self) -> float:
        """Seconds."""
        return self.clock.now

    def add(self, name: str, build: Builder, *addresses: str) -> Station:
        """A process at these addresses."""
        station = self.stations[name] = Station(self, name, build)
        for address in addresses:
            self.network.hosts[address] = station.host
        station.handle(Tick())
        return station

    def run(self, span: float) -> None:
        """Let time pass."""
        self.clock.run(self.clock.now + span)

    def run_until(self, holds: Callable[[], bool], within: float = 60.0, step: float = 0.02) -> bool:
        """Let time pass until something holds; whether it does."""
        end = self.clock.now + within
        while not holds():
            if self.clock.now >= end:
                return False
            self.clock.run(min(end, self.clock.now + step))
        return True

    # ------------------------------------------------------------------------------------------- a gateway's links

    def inside_link(self, gateway: Station, device: str, address: str) -> None:
        """The gateway's I-face."""
        self._insides[gateway.name] = device, address
        self.network.hosts[address] = gateway.host
        self.phones.planes[address] = gateway.plane
        gateway.handle(Link(device, self._index(device), True, (address,)))

    def add_uplink(self, gateway: Station, uplink: Uplink) -> Uplink:
        """An uplink, up and working."""
        self.network.uplinks[uplink.device] = uplink
        self.tell(gateway, uplink)
        return uplink

    def tell(self, gateway: Station, uplink: Uplink) -> None:
        """What the kernel says of an interface, as it is now (rtnetlink)."""
        for address in uplink.addresses:
            self.network.hosts[address] = gateway.host
            self.network.uplink_of[address] = uplink
            self.phones.planes[address] = gateway.plane
        for address, known in self.network.uplink_of.items():
            if known is uplink and address not in uplink.addresses:
                self.phones.planes.pop(address, None)
        addresses = tuple(uplink.addresses)
        gateway.handle(Link(uplink.device, self._index(uplink.device), uplink.carrier, addresses))

    def restart(self, station: Station) -> None:
        """Start a process again; a gateway finds its interfaces as they are, and no flow."""
        plane = station.plane
        station.plane = Plane(self.network, self.phones, station)
        for address, known in self.phones.planes.items():
            if known is plane:
                self.phones.planes[address] = station.plane
        station.restart()
        if station.name in self._insides:
            self.inside_link(station, *self._insides[station.name])
        for uplink in self.network.uplinks.values():
            if self.network.hosts.get(next(iter(uplink.addresses), "")) is station.host:
                self.tell(station, uplink)

    def path_of(self, gateway: Station, group: int) -> MediaPath | None:
        """Where a group's media leave."""
        return gateway.plane.paths.get(group)

    def _index(self, device: str) -> int:
        return self._ifindex.setdefault(device, len(self._ifindex) + 2)
