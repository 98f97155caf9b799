"""What arrived of one RTP stream: gaps in sequence and in time, duplicates, reordering, changes of source.

Pure bookkeeping, one call a packet; instants come in from outside (the kernel's time of arrival).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

LONGEST_SILENCE: Final = 0.06
"Seconds between two arrivals beyond which the pause is recorded as a gap, lost packets or not, unless told other."

MARK: Final = b"SNMO"
"In our packets, behind the instant of sending (monotonic nanoseconds, 64 bits)."

MOST_GAPS: Final = 1000
MOST_SOURCES: Final = 100
MOST_MISSING: Final = 2048
"Missing packets remembered, so that late ones are told from duplicates."


@dataclass(slots=True)
class Gap:
    """A pause in what arrived."""

    at: float
    "When the first packet after it arrived, monotonic seconds."

    gap_ms: float
    "Silence before that packet."

    lost: int
    "Packets that are missing in the sequence, less those that came late."

    source: str
    "Where the first packet after it came from, as ip:port."

    stalled_ms: float = 0.0
    "How much of the silence is the sender's own: it was slow to send (known of our own packets only)."


@dataclass(slots=True)
class StreamReport:
    """Everything the engine knows about one stream."""

    account: str
    call_id: str
    port: int
    sent: int = 0
    "Packets numbered and handed to the kernel."

    unsent: int = 0
    "Those of `sent` that the kernel refused: no route, link down."

    packets: int = 0
    "Received, duplicates not counted."

    lost: int = 0
    duplicates: int = 0
    reordered: int = 0
    unexpected: int = 0
    "Of `packets`: from another address than was signalled."

    foreign: int = 0
    "Not of this stream at all: other SSRC from an address that was not signalled; not in `packets`."

    junk: int = 0
    "Neither RTP nor RTCP."

    restarts: int = 0
    "Times the far end began a new sequence (new SSRC)."

    rtcp_sent: int = 0
    rtcp_received: int = 0
    first_at: float | None = None
    "Monotonic seconds; None when nothing arrived."

    last_at: float | None = None
    gaps: list[Gap] = field(default_factory=list)
    sources: list[tuple[float, str]] = field(default_factory=list)
    "When packets came from an address for the first time in a row, and which."

    def as_json(self) -> dict[str, Any]:
        """The fields, JSON-able, times rounded to microseconds."""
        return {
            "account": self.account,
            "call_id": self.call_id,
            "direction": "received",
            "sent": self.sent,
            "unsent": self.unsent,
            "packets": self.packets,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "reordered": self.reordered,
            "unexpected": self.unexpected,
            "foreign": self.foreign,
            "junk": self.junk,
            "restarts": self.restarts,
            "rtcp_sent": self.rtcp_sent,
            "rtcp_received": self.rtcp_received,
            "port": self.port,
            "first_at": _micro(self.first_at),
            "last_at": _micro(self.last_at),
            "gaps": [
                {
                    "at": _micro(gap.at),
                    "gap_ms": round(gap.gap_ms, 3),
                    "lost": gap.lost,
                    "source": gap.source,
                    "stalled_ms": round(gap.stalled_ms, 3),
                }
                for gap in self.gaps
            ],
            "sources": [{"at": _micro(at), "source": source} for at, source in self.sources],
        }


class Reception:
    """Takes packets in and keeps the report up to date."""

    __slots__ = ("_before", "_last", "_longest_silence", "_missing", "_next", "_ssrc", "peer", "report", "source")

    def __init__(self, report: StreamReport, longest_silence: float = LONGEST_SILENCE) -> None:
        self.report = report
        self._longest_silence = longest_silence
        self.peer: tuple[str, int] | None = None
        "The address that was signalled; None: any is expected."
        self._ssrc = b""
        self._next = 0
        self._last = float("inf")
        "Arrival of the packet before; infinity when the next silence does not count."
        self.source: tuple[str, int] = ("", 0)
        "Where the last packet of this stream came from."
        self._missing: dict[int, Gap] = {}
        self._before = b""
        "The packet before."

    def pause(self) -> None:
        """The silence up to the next packet was agreed upon (hold)."""
        self._last = float("inf")

    def take(self, data: bytes, at: float, source: tuple[str, int]) -> None:
        """One datagram that arrived at this instant from this address."""
        report = self.report
        if len(data) < 12 or data[0] & 0xC0 != 0x80:
            report.junk += 1
            return
        if 192 <= data[1] <= 223:  # RFC 5761 §4
            report.rtcp_received += 1
            return
        sequence = data[2] << 8 | data[3]
        if data[8:12] != self._ssrc and not self._begin(data[8:12], sequence, source):
            report.foreign += 1
            return
        if source != self.source:
            self.source = source
            if len(report.sources) < MOST_SOURCES:
                report.sources.append((at, endpoint(source)))
        ahead = (sequence - self._next) & 0xFFFF
        if ahead >= 0x8000:
            self._late(sequence, at)
            return
        silence = at - self._last
        if ahead or silence > self._longest_silence:
            self._gap(ahead, silence, at, data)
        self._before = data
        self._last = report.last_at = at
        self._next = (sequence + 1) & 0xFFFF
        report.packets += 1
        if source != self.peer and self.peer is not None:
            report.unexpected += 1
        if report.first_at is None:
            report.first_at = at

    def _begin(self, ssrc: bytes, sequence: int, source: tuple[str, int]) -> bool:
        """A new SSRC: the first one, or a restart by who was signalled; anybody else's is foreign."""
        if self._ssrc:
            if source != self.peer:
                return False
            self.report.restarts += 1
        self._ssrc = ssrc
        self._next = sequence
        self._missing.clear()
        return True

    def _gap(self, lost: int, silence: float, at: float, data: bytes) -> None:
        stalled = _stall(self._before, data, lost)
        gap = Gap(at, max(0.0, silence) * 1000, lost, endpoint(self.source), stalled)
        self.report.lost += lost
        for number in range(self._next, self._next + min(lost, MOST_MISSING)):
            self._missing[number & 0xFFFF] = gap
        while len(self._missing) > MOST_MISSING:
            del self._missing[next(iter(self._missing))]
        if len(self.report.gaps) < MOST_GAPS:
            self.report.gaps.append(gap)

    def _late(self, sequence: int, at: float) -> None:
        report = self.report
        gap = self._missing.pop(sequence, None)
        if gap is None:
            report.duplicates += 1
            return
        report.packets += 1
        report.reordered += 1
        report.lost -= 1
        report.last_at = self._last = at
        gap.lost -= 1
        if not gap.lost and gap.gap_ms <= self._longest_silence * 1000 and gap in report.gaps:
            report.gaps.remove(gap)


def _stall(before: bytes, after: bytes, lost: int) -> float:
    """Milliseconds that the sender took beyond 20 for each of its packets, from the instants inside them."""
    if before[20:24] != MARK or after[20:24] != MARK:
        return 0.0
    spent = int.from_bytes(after[12:20], "big") - int.from_bytes(before[12:20], "big")
    return max(0.0, spent / 1e6 - 20.0 * (lost + 1))


def endpoint(address: tuple[str, int]) -> str:
    """An address in words: ip:port, an IPv6 address in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _micro(at: float | None) -> float | None:
    return None if at is None else round(at, 6)
