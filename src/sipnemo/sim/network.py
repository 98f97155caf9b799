"""Addresses and what lies between them: a LAN, uplinks that fail in every way, the internet; UDP and TCP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Generic, TypeVar

from sipnemo.sim.clock import Clock
from sipnemo.sim.nat import Nat
from sipnemo.sip.flow import Address, Flow, Local

LAN_DELAY = 0.0005
INTERNET_DELAY = 0.002
"Seconds one way between two hosts of the internet; an uplink adds its own."
TCP_PATIENCE = 16.0
"Seconds of unacknowledged data after which a connection breaks."
TCP_RETRY = 0.4

QUEUE = 0.5
"Seconds a packet waits at most for a busy line."
SIP_SIZE = 700
"Octets of a message where only the load of a line is meant."

V = TypeVar("V")
Receive = Callable[[bytes, Flow], None]
Tell = Callable[[Flow, str], None]


class Way:
    """One direction of an uplink: what befalls its packets. Spans in seconds."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.jitter = 0.0
        "By which a packet may be later than others: beyond its spacing they overtake each other, unless `in_order`."
        self.loss = 0.0
        self.silent = False
        "The carrier is there, and nothing gets through."
        self.rate = 0.0
        "Bits per second; 0 is without limit. What would wait longer than `QUEUE` is dropped."
        self.in_order = False
        self.dropped = 0
        "Packets for which the line was too busy."
        self.waited = 0.0
        "The longest wait for it, and its own time on it, of any that passed."
        self._last = 0.0
        self._busy_until = 0.0

    def through(self, now: float, size: int, chance: Random) -> float | None:
        """When a packet of so many octets is at the other end; None: never."""
        if self.loss and chance.random() < self.loss:
            return None
        if self.rate:
            sent = max(now, self._busy_until) + size * 8 / self.rate
            if sent - now > QUEUE:
                self.dropped += 1
                return None
            self.waited = max(self.waited, sent - now)
            now = self._busy_until = sent
        at = now + self.delay
        if self.jitter:
            at += chance.random() * self.jitter
        if self.in_order:
            at = self._last = max(self._last, at)
        return at


class Both(Generic[V]):
    """An attribute of an uplink that means both directions: read of `up`, written to either."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, uplink: Uplink, owner: type) -> V:
        value: V = getattr(uplink.up, self._name)
        return value

    def __set__(self, uplink: Uplink, value: V) -> None:
        setattr(uplink.up, self._name, value)
        setattr(uplink.down, self._name, value)


class Uplink:
    """One interface of the gateway and all that lies between it and the internet."""

    delay = Both[float]()
    jitter = Both[float]()
    loss = Both[float]()
    silent = Both[bool]()

    def __init__(self, device: str, address: str, delay: float = 0.025) -> None:
        self.device = device
        self.addresses = [address]
        self.up = Way(delay)
        self.down = Way(delay)
        self.duplicates = 0.0
        self.carrier = True
        self.nat: Nat | None = None
        "What its addresses are hidden behind."
        self.packets: Counter[str] = Counter()
        "By direction: 'up', 'down'; and 'lost'."

    def carries(self, address: str, way: Way) -> bool:
        """Whether a packet from or to this address of ours gets through now, in this direction."""
        return self.carrier and not way.silent and address in self.addresses


class Host:
    """Something with addresses: its open sockets, and what receives for it."""

    def __init__(self, name: str, receive: Receive, failed: Tell, closed: Callable[[Flow], None]) -> None:
        self.name = name
        self.receive = receive
        self.failed = failed
        self.closed = closed
        self.sockets: dict[tuple[str, str, int], Local] = {}
        self.connections: dict[Flow, Connection] = {}

    def listen(self, local: Local) -> None:
        self.sockets[local.transport, local.host, local.port] = local

    def unlisten(self, local: Local) -> None:
        self.sockets.pop((local.transport, local.host, local.port), None)
        for flow, connection in list(self.connections.items()):
            if flow.local == local:
                connection.end("socket closed")


class Network:
    """Carries octets from address to address, or not."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self.clock = clock
        self.chance = Random(f"network {seed}")
        self.hosts: dict[str, Host] = {}
        "By address."
        self.uplinks: dict[str, Uplink] = {}
        "By device."
        self.uplink_of: dict[str, Uplink] = {}
        "By address of the gateway; addresses it no longer has stay, and lead nowhere."
        self.lan = "10.7.0."
        self.errors = False
        "Whether sending without carrier or address is reported to the sender (ENETUNREACH)."
        self.refuses = False
        "Whether a host on which a process has died answers for it with ICMP; else it is as if the host had gone."
        self.sent: list[tuple[float, Address, Address, bytes]] = []
        "Every SIP or STUN message handed to the network, while `keep` is set."
        self.keep = False
        self.vanished: set[int] = set()
        "Which of `sent` were lost at once, by place in it."
        self.drop: Callable[[bytes, Address, Address], bool] | None = None
        "Whether this datagram is lost; beside the seeded loss."
        self.lost: Counter[str] = Counter()
        self._ephemeral = 40_000

    # -------------------------------------------------------------------------------------------------- packets

    def ways(self, source: str, target: str, size: int = SIP_SIZE) -> list[float]:
        """The delays after which a packet arrives: none when it is lost, two when it is doubled."""
        uplink = self.uplink_of.get(source)
        if uplink is not None:
            way, direction, address = uplink.up, "up", source
        else:
            uplink = self.uplink_of.get(target)
            if uplink is None:
                inside = source.startswith(self.lan)
                if inside != target.startswith(self.lan):
                    self.lost["unroutable"] += 1
                    return []
                return [LAN_DELAY if inside else INTERNET_DELAY]
            way, direction, address = uplink.down, "down", target
        if not uplink.carries(address, way):
            self.lost["dead path"] += 1
            return []
        chance, now = self.chance, self.clock.now
        through = way.through(now, size, chance)
        if through is None:
            self.lost["loss"] += 1
            return []
        uplink.packets[direction] += 1
        if uplink.duplicates and chance.random() < uplink.duplicates:
            return [through - now, way.delay + chance.random() * (way.jitter + 0.01)]
        return [through - now]

    def translated(self, source: Address, target: Address) -> tuple[Address, Address] | None:
        """Where a UDP packet seems to come from, and whom it is for, behind all NATs; None: one of them drops it."""
        seen = source
        uplink = self.uplink_of.get(source[0])
        if uplink is not None and uplink.nat is not None:
            seen = uplink.nat.out(source, target)
        for other in self.uplinks.values():
            if other.nat is not None and other.nat.public == target[0]:
                inner = other.nat.back(seen, target)
                if inner is None:
                    self.lost["nat"] += 1
                    return None
                return seen, inner
        return seen, target

    def arrives(self, source: str, target: str) -> bool:
        """Whether the path is still there at the instant of arrival."""
        uplink = self.uplink_of.get(source)
        if uplink is not None:
            return uplink.carries(source, uplink.up)
        uplink = self.uplink_of.get(target)
        return uplink is None or uplink.carries(target, uplink.down)

    # ------------------------------------------------------------------------------------------------- messages

    def send(self, host: Host, data: bytes, flow: Flow) -> None:
        """One message of a node."""
        local = flow.local
        if self.keep:
            self.sent.append((self.clock.now, (local.host, local.port), flow.remote, data))
        if (local.transport, local.host, local.port) not in host.sockets:
            self.lost["no socket"] += 1
            if flow.reliable:
                self.clock.after(0.0, host.failed, flow, "no socket")
            return
        if flow.reliable:
            self._stream(host, flow).send(host, data)
            return
        if self.drop is not None and self.drop(data, (local.host, local.port), flow.remote):
            return
        uplink = self.uplink_of.get(local.host)
        if self.errors and uplink is not None and not (uplink.carrier and local.host in uplink.addresses):
            self.clock.after(0.0, host.failed, flow, "network unreachable")
            return
        ends = self.translated((local.host, local.port), flow.remote)
        ways = self.ways(local.host, ends[1][0], len(data)) if ends is not None else []
        if self.keep and not ways:
            self.vanished.add(len(self.sent) - 1)
        for delay in ways:
            assert ends is not None
            self.clock.after(delay, self._datagram, data, *ends, local.host)

    def _datagram(self, data: bytes, source: Address, target: Address, sender: str) -> None:
        if not self.arrives(sender, target[0]):
            return
        host = self.hosts.get(target[0])
        local = host.sockets.get(("UDP", *target)) if host is not None else None
        if host is None or local is None:
            self._refuse(source, target)
            return
        host.receive(data, Flow(local, source))

    def _refuse(self, source: Address, target: Address) -> None:
        """Nobody listens there: a host that lives says so (ICMP port unreachable)."""
        self.lost["nobody there"] += 1
        sender = self.hosts.get(source[0])
        local = sender.sockets.get(("UDP", *source)) if sender is not None else None
        if self.refuses and target[0] in self.hosts and sender is not None and local is not None:
            for delay in self.ways(target[0], source[0]):
                self.clock.after(delay, sender.failed, Flow(local, target), "Connection refused")

    def _stream(self, host: Host, flow: Flow) -> Connection:
        known = host.connections.get(flow)
        if known is not None:
            return known
        self._ephemeral += 1
        return Connection(self, host, flow, (flow.local.host, self._ephemeral))


class Connection:
    """One TCP connection: nothing is lost or overtaken while it lives; it breaks when data is stuck for too long."""

    def __init__(self, network: Network, client: Host, flow: Flow, source: Address) -> None:
        self._network = network
        self._client = client
        self._flow = flow
        self._source = source
        self._server: Host | None = None
        self._back: Flow | None = None
        self._free_at = {True: 0.0, False: 0.0}
        self._over = False
        client.connections[flow] = self

    def send(self, host: Host, data: bytes) -> None:
        """Queue a message in the direction away from `host`."""
        forward = host is self._client
        self._try(forward, data, self._network.clock.now, max(self._network.clock.now, self._free_at[forward]))

    def _try(self, forward: bool, data: bytes, since: float, not_before: float) -> None:
        clock = self._network.clock
        source, target = self._source[0], self._flow.remote[0]
        if not forward:
            source, target = target, source
        ways = self._network.ways(source, target)
        if not ways:  # lost: TCP sends it again, and everything behind it waits
            wait = clock.now + TCP_RETRY
            self._free_at[forward] = max(self._free_at[forward], wait)
            clock.at(wait, self._again, forward, data, since)
            return
        at = max(clock.now + ways[0], not_before, self._free_at[forward] + 1e-6)
        if forward and self._server is None:
            at += 2 * ways[0]  # the handshake
        self._free_at[forward] = at
        clock.at(at, self._arrive, forward, data, since)

    def _again(self, forward: bool, data: bytes, since: float) -> None:
        if self._over:
            return
        if self._network.clock.now - since > TCP_PATIENCE:
            self.end("connection timed out")
        else:
            self._try(forward, data, since, 0.0)

    def _arrive(self, forward: bool, data: bytes, since: float) -> None:
        if self._over:
            return
        source, target = self._source[0], self._flow.remote[0]
        if not (self._network.arrives(source, target) and self._network.arrives(target, source)):
            self._again(forward, data, since)
            return
        if forward and self._server is None:
            server = self._network.hosts.get(target)
            local = server.sockets.get((self._flow.local.transport, *self._flow.remote)) if server else None
            if server is None or local is None:
                self.end("connection refused")
                return
            self._server, self._back = server, Flow(local, self._source)
            server.connections[self._back] = self
        if forward:
            assert self._server is not None
            assert self._back is not None
            self._server.receive(data, self._back)
        else:
            self._client.receive(data, self._flow)

    def end(self, why: str) -> None:
        """Both ends learn of it (the far one by a reset, sooner or later)."""
        if self._over:
            return
        self._over = True
        self._client.connections.pop(self._flow, None)
        self._client.failed(self._flow, why)
        self._client.closed(self._flow)
        if self._server is not None and self._back is not None:
            self._server.connections.pop(self._back, None)
            self._server.failed(self._back, why)
            self._server.closed(self._back)
