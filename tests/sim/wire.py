"""A tiny world for whole nodes: a virtual clock and a wire that delivers by address after a delay, or loses.

Nodes are added with the addresses they listen on; `run` advances the clock from event to event. Everything that is
random comes from the seed, so a story that fails once fails always.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from sipnemo.roles.node import Answer as DnsAnswer
from sipnemo.roles.node import Finished, Lookup, Node, Notice, Received, Reply, Send, Store, Stored, Tick
from sipnemo.sip.flow import Address, Flow, Local


@dataclass
class Station:
    """One node and what it has said to the world."""

    node: Node
    addresses: dict[tuple[str, Address], Local]
    notices: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    replies: dict[int, Any] = field(default_factory=dict)
    actions: list[tuple[float, Any]] = field(default_factory=list)
    "Actions that nobody here performs."
    finished: bool = False

    def events(self, name: str) -> list[dict[str, Any]]:
        """The bodies of all notices of this name."""
        return [body for _, known, body in self.notices if known == name]


class Wire:
    """The world."""

    def __init__(self, seed: int = 1, delay: float = 0.025, loss: float = 0.0) -> None:
        self.now = 1000.0
        "Not 0: nodes must not depend on where the clock begins."
        self.delay = delay
        self.loss = loss
        self.chance = Random(seed)
        self.names: dict[tuple[str, str], tuple[tuple[Any, ...], ...]] = {}
        "What DNS knows: (name, kind) → records."
        self.sent: list[tuple[float, Address, Address, bytes]] = []
        "Every datagram, lost ones too: when, from, to, octets."
        self.drop: Callable[[bytes], bool] = lambda _data: False
        "Whether this datagram is lost; beside the seeded loss."
        self.stations: list[Station] = []
        self.performers: dict[type, Callable[[Station, Any], None]] = {}
        "What else the world performs: action type → function."
        self._order = count()
        self._queue: list[tuple[float, int, Station, Any]] = []

    def add(self, node: Node, *locals: Local) -> Station:
        """Put a node at these addresses and wake it."""
        station = Station(node, {(local.transport, (local.host, local.port)): local for local in locals})
        self.stations.append(station)
        self.feed(station, Tick())
        return station

    def feed(self, station: Station, input: Any, after: float = 0.0) -> None:
        """Bring an input to a node, now or later."""
        heapq.heappush(self._queue, (self.now + after, next(self._order), station, input))

    def run(self, *, until: float | None = None, span: float = 60.0, stop: Callable[[], bool] | None = None) -> bool:
        """Let `span` seconds pass (or go on until the instant `until`), or stop as soon as `stop()` holds."""
        end = self.now + span if until is None else until
        while True:
            if stop is not None and stop():
                return True
            station = min(
                (station for station in self.stations if station.node.deadline is not None),
                key=lambda station: station.node.deadline or 0.0,
                default=None,
            )
            deadline = station.node.deadline if station is not None else None
            queued = self._queue[0][0] if self._queue else None
            times = [at for at in (deadline, queued) if at is not None]
            if not times or min(times) > end:
                self.now = end
                return stop is not None and stop()
            self.now = max(self.now, min(times))
            if queued is not None and (deadline is None or queued <= deadline):
                _, _, target, input = heapq.heappop(self._queue)
                self._handle(target, input)
            elif station is not None:
                self._handle(station, Tick())

    def texts(self, start: str) -> list[str]:
        """All messages sent so far whose first line begins so."""
        return [data.decode("latin-1") for _, _, _, data in self.sent if data.startswith(start.encode())]

    def _handle(self, station: Station, input: Any) -> None:
        for action in station.node.handle(input, self.now):
            performer = self.performers.get(type(action))
            if performer is not None:
                performer(station, action)
                continue
            match action:
                case Send(data, flow):
                    self._send(data, flow)
                case Notice(name, body):
                    station.notices.append((self.now, name, dict(body)))
                case Lookup(ticket, name, kind):
                    records = tuple((kind, record) for record in self.names.get((name, kind), ()))
                    self.feed(station, DnsAnswer(ticket, records, 60.0), self.delay)
                case Reply(ticket, result):
                    station.replies[ticket] = result
                case Store(ticket, _, _):
                    self.feed(station, Stored(ticket))
                case Finished():
                    station.finished = True
                case _:
                    station.actions.append((self.now, action))

    def _send(self, data: bytes, flow: Flow) -> None:
        source = (flow.local.host, flow.local.port)
        self.sent.append((self.now, source, flow.remote, data))
        # A stream loses nothing; which connection carries it does not matter here.
        reliable = flow.reliable
        if self.drop(data) or (not reliable and self.loss and self.chance.random() < self.loss):
            return
        for station in self.stations:
            local = station.addresses.get((flow.local.transport, flow.remote))
            if local is not None:
                self.feed(station, Received(data, Flow(local, source)), self.delay)
                return
