"""The load of each E-face (MH-4): bytes per second of its media, in percent of its configured capacity.

The same counters tell when nothing is heard any more: of a call (`lost.py`), or of a path, which is then probed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sipnemo.media.flow import INSIDE
from sipnemo.roles.node import Counted, ReadCounters

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

OVERHEAD = 28
"Octets of IP and UDP header in front of what the counters count (IPv4; close enough for IPv6)."
MEASURE_EVERY = 2.0
COST_PER_FLOW = 100.0
"A reading of n flows is repeated after n/COST_PER_FLOW milliseconds at the earliest, so that it costs about 3 %."


class Speech(NamedTuple):
    """RTP of one call at the last reading."""

    up: int
    down: int
    "Packets so far."

    spoke_up: bool
    spoke_down: bool
    "Some came since the reading before."


NOTHING = Speech(0, 0, False, False)


class LoadMeter:
    """Reads the counters of all flows now and then."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._next_at = 0.0
        self._read_at = 0.0
        self._bytes: dict[str, int] = {}
        self._reading = False
        self._received: dict[Session, tuple[Path, int]] = {}
        "Packets that have come in over the path of each call."
        self._speech: dict[Session, Speech] = {}
        self._speaking: set[Path] = set()
        "Paths over which something has come in between the last two readings."

    def speech(self, session: Session) -> Speech:
        """Who was speaking in this call, as long as its path worked."""
        return self._speech.get(session, NOTHING)

    def measure(self, now: float) -> None:
        """Ask for the counters, if it is time."""
        if self._reading or now < self._next_at:
            return
        keys = [key for session in self._node.calls.open if session.media for key in session.media.flows]
        if not keys:
            for path in self._node.paths.all:
                path.load = path.rate = 0.0
            self._bytes.clear()
            self._received.clear()
            self._speaking.clear()
            self._speech.clear()
            return
        self._next_at = now + max(MEASURE_EVERY, len(keys) / COST_PER_FLOW / 1000)
        self._reading = True
        self._node.act(ReadCounters(self._node.ticket(self._counted), tuple(keys)))

    def _counted(self, counted: Counted, now: float) -> None:
        """Sum up per path: what came in by its address, and what went out by its group."""
        self._reading = False
        sums: dict[str, int] = {path.address: 0 for path in self._node.paths.all}
        received: dict[Session, tuple[Path, int]] = {}
        speech: dict[Session, Speech] = {}
        speaking: set[Path] = set()
        by_group = {path.group: path.address for path in self._node.paths.all} | self._node.doubling.groups
        for session in self._node.calls.open:
            if session.media is None:
                continue
            total = down = 0
            said = [0, 0]
            path = session.path
            for key, flow in session.media.flows.items():
                packets, octets = counted.counters.get(key, (0, 0))
                total += packets
                if key.port % 2 == 0:
                    said[flow.group == INSIDE] += packets
                address = key.host if flow.group == INSIDE else by_group.get(flow.group, "")
                if flow.group == INSIDE and address == path.address:
                    down += packets
                if address in sums:
                    sums[address] += octets + packets * OVERHEAD
            if total != session.packets:
                session.packets, session.heard_at = total, now
            received[session] = (path, down)
            was = self._speech.get(session, NOTHING)
            works = path.present and path.proven  # by a dead path nobody is heard, however much he says
            speech[session] = Speech(said[0], said[1], said[0] > was.up, said[1] > was.down) if works else was
            known, before = self._received.get(session, (None, 0))
            if known is path and down > before:
                speaking.add(path)
        for path in self._speaking - speaking:
            if path.sessions and path in self._node.probers:
                self._node.probers[path].doubt(now)
        self._received, self._speaking = received, speaking
        self._speech = speech
        self._node.pinholes.counted(counted.counters, now)
        span = now - self._read_at
        for path in self._node.paths.all:
            same = [other.address for other in self._node.paths.all if other.eface is path.eface]
            octets = sum(max(0, sums[address] - self._bytes.get(address, 0)) for address in same)
            if span > 0 and self._bytes:
                path.rate = octets * 8 / span / 2
            if path.eface.capacity and span > 0 and self._bytes:
                path.load = min(100.0, octets * 8 / span / path.eface.capacity * 100)
        self._bytes = sums
        self._read_at = now
