"""Media in the simulated world: phones that send numbered packets, and a plane that forwards them by its flow table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count, pairwise
from typing import TYPE_CHECKING, NamedTuple

from sipnemo.media.flow import INSIDE, FlowKey, MediaFlow, MediaPath
from sipnemo.roles.node import AddFlows, Counted, Learned, Punch, ReadCounters, RemoveFlows, SetPath
from sipnemo.roles.phone.media import CloseStream, OpenStream, SetStream, StreamOpened
from sipnemo.sim.network import Network
from sipnemo.sip.flow import Address

if TYPE_CHECKING:
    from sipnemo.sim.world import Station

SIZE = 200
"Octets of a packet's payload, for the counters."


class Packet(NamedTuple):
    """One RTP-like packet."""

    stream: Stream
    number: int
    sent_at: float


class Stream:
    """One phone's RTP session of one call."""

    def __init__(self, station: Station, ask: OpenStream, port: int) -> None:
        self.station = station
        self.account = ask.account
        self.call_id = ask.call_id
        self.address: Address = (ask.host, port)
        self.peer: Address | None = None
        self.comedia = False
        "See `Phones.comedia`."
        self.latched = False
        self.expect = False
        self.sent = 0
        self.arrivals: list[tuple[float, int, float]] = []
        "When, number, and when it was sent."
        self.foreign = 0
        "Packets of another call: nobody may ever hear those."
        self.open = True
        self.ticking = False
        self.sent_at: list[tuple[int, float]] = []

    def received_between(self, begin: float, end: float) -> int:
        """How many packets came in this span."""
        return sum(begin <= at < end for at, _, _ in self.arrivals)

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest silence in this span, its edges included."""
        instants = [begin, *(at for at, _, _ in self.arrivals if begin <= at <= end), end]
        return max(after - before for before, after in pairwise(instants))

    def lost_between(self, begin: float, end: float, sender: Stream) -> int:
        """How many of the packets that the far end sent in this span never came."""
        came = {number for _, number, sent_at in self.arrivals if begin <= sent_at < end}
        return len({number for number, at in sender.sent_at if begin <= at < end} - came)


class Phones:
    """The RTP engines of all phones."""

    def __init__(self, network: Network, every: float) -> None:
        self._network = network
        self.every = every
        "Seconds between packets of one stream."
        self._ports = count(20_000, 2)
        self._by_number: dict[tuple[int, int], Stream] = {}
        self.at: dict[Address, Stream] = {}
        self.all: list[Stream] = []
        self.planes: dict[str, Plane] = {}
        "Gateways by address."
        self.twins: dict[str, str] = {}
        "Of a host with addresses of both families, each → the other one."
        self.comedia: set[str] = set()
        "Accounts that send to where the first packet after each offer or answer comes from, whatever it said."
        self.seen: Callable[[str, str, bool], None] | None = None
        "Told of each packet that is not within the LAN: from where, to where, and whether it gets through."
        self.swallow: Callable[[str, str], bool] | None = None
        "Whether a NAT or filter takes the media from one host to another, and lets SIP through."

    @property
    def open(self) -> int:
        """Streams that are open."""
        return len(self._by_number)

    def open_stream(self, station: Station, action: OpenStream) -> None:
        stream = Stream(station, action, next(self._ports))
        stream.comedia = action.account in self.comedia
        self._by_number[id(station), action.stream] = stream
        self.at[stream.address] = stream
        self.all.append(stream)
        self._network.clock.after(0.0, station.handle, StreamOpened(action.ticket, stream.address[1]))

    def set_stream(self, station: Station, action: SetStream) -> None:
        stream = self._by_number[id(station), action.stream]
        if not (stream.comedia and stream.latched and action.peer is not None):
            stream.peer = action.peer
        stream.latched = False
        stream.expect = action.expect
        if stream.peer is not None and not stream.ticking:
            stream.ticking = True
            self._network.clock.after(self._network.chance.random() * self.every, self._tick, stream)

    def close_stream(self, station: Station, action: CloseStream) -> None:
        stream = self._by_number.pop((id(station), action.stream))
        stream.open = False
        del self.at[stream.address]

    def _tick(self, stream: Stream) -> None:
        if not stream.open or stream.peer is None:
            stream.ticking = False
            return
        clock = self._network.clock
        clock.after(self.every, self._tick, stream)
        stream.sent += 1
        stream.sent_at.append((stream.sent, clock.now))
        self.carry(stream.address, stream.peer, Packet(stream, stream.sent, clock.now))

    def carry(self, source: Address, target: Address, packet: Packet) -> None:
        """Bring a packet to an address by whatever lies between; within the LAN at once."""
        network = self._network
        if (":" in source[0]) != (":" in target[0]):
            if source[0] not in self.twins:
                network.lost["family"] += 1
                return
            source = (self.twins[source[0]], source[1])
        if source[0].startswith(network.lan) and target[0].startswith(network.lan):
            self._arrive(source, target, packet)
            return
        if source[0] in self.planes and target[0] in self.planes:
            self._arrive(source, target, packet)  # two phones of one gateway: the packet never leaves it
            return
        if self.swallow is not None and self.swallow(source[0], target[0]):
            return
        ends = network.translated(source, target)
        ways = network.ways(source[0], ends[1][0], SIZE) if ends is not None else []
        if self.seen is not None:
            self.seen(source[0], target[0], bool(ways))
        for delay in ways:
            assert ends is not None
            network.clock.after(delay, self._arrive_if, *ends, packet, source[0])

    def _arrive_if(self, source: Address, target: Address, packet: Packet, sender: str) -> None:
        if self._network.arrives(sender, target[0]):
            self._arrive(source, target, packet)

    def _arrive(self, source: Address, target: Address, packet: Packet) -> None:
        plane = self.planes.get(target[0])
        if plane is not None:
            plane.forward(source, FlowKey(*target), packet)
            return
        stream = self.at.get(target) or self.at.get((self.twins.get(target[0], ""), target[1]))
        if stream is None:
            self._network.lost["media to nobody"] += 1
        elif packet.stream.call_id != stream.call_id:
            stream.foreign += 1
        else:
            stream.arrivals.append((self._network.clock.now, packet.number, packet.sent_at))
            if stream.comedia and not stream.latched:
                stream.latched, stream.peer = True, source


class Plane:
    """A gateway's media plane: exactly what its flow table and its groups say."""

    def __init__(self, network: Network, phones: Phones, station: Station) -> None:
        self._network = network
        self._phones = phones
        self._station = station
        self.flows: dict[FlowKey, MediaFlow] = {}
        self.paths: dict[int, MediaPath] = {}
        self.counters: dict[FlowKey, list[int]] = {}
        self._latched: set[FlowKey] = set()
        self.refused: Counter[str] = Counter()
        self.path_writes = 0
        self.punched: list[tuple[float, str, int, Address]] = []
        "When, from which address and port, and to whom."

    def add(self, action: AddFlows) -> None:
        for flow in action.flows:
            self.flows[flow.key] = flow
            self.counters.setdefault(flow.key, [0, 0])
            self._latched.discard(flow.key)

    def remove(self, action: RemoveFlows) -> None:
        for key in action.keys:
            self.flows.pop(key, None)
            self.counters.pop(key, None)
            self._latched.discard(key)

    def set_path(self, action: SetPath) -> None:
        self.paths[action.path.group] = action.path
        self.path_writes += 1

    def read(self, action: ReadCounters) -> None:
        found = {key: (c[0], c[1]) for key in action.keys if (c := self.counters.get(key)) is not None}
        self._network.clock.after(0.0005, self._station.handle, Counted(action.ticket, found))

    def forward(self, source: Address, key: FlowKey, packet: Packet) -> None:
        """One packet that has arrived at `key`."""
        flow = self.flows.get(key)
        if flow is None:
            self.refused["no flow"] += 1
            return
        if flow.admit and key not in self._latched:
            self._learn(flow, source)
        counter = self.counters[key]
        counter[0] += 1
        counter[1] += SIZE
        path = self.paths.get(flow.group)
        if path is None:
            self.refused["no path"] += 1
            return
        for source_host, device in ((path.source, path.device), *([path.also] if path.also is not None else [])):
            if flow.group != INSIDE:
                uplink = self._network.uplinks.get(device)
                if uplink is None or source_host not in uplink.addresses:
                    self.refused["foreign source address"] += 1  # the provider drops it
                    continue
            self._phones.carry((source_host, flow.source_port), flow.peer, packet)

    def punch(self, action: Punch) -> None:
        """A packet that no stream ever hears of, but a NAT sees."""
        path = action.path
        uplink = self._network.uplinks.get(path.device)
        if uplink is not None and uplink.carries(path.source, uplink.up):
            self.punched.append((self._network.clock.now, path.source, action.port, action.peer))
            self._network.translated((path.source, action.port), action.peer)

    def _learn(self, flow: MediaFlow, source: Address) -> None:
        if flow.reverse is None or source[0] not in flow.admit:
            return
        self._latched.add(flow.key)
        reverse = self.flows.get(flow.reverse)
        if reverse is not None and reverse.peer != source:
            self.flows[flow.reverse] = reverse._replace(peer=source)
            self._network.clock.after(0.0, self._station.handle, Learned(flow.reverse, source))
