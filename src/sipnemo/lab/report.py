"""What a run has shown: which gap belongs to which move, and the figures of `report.json`.

Phones report, for what they receive, every gap in a stream. The run knows when it broke or mended what. A gap belongs
to the move in whose window its end lies: the window opens when the link was cut (or the command given) and closes
when the next thing is done to the world. So a gap that never ends is nobody's gap but a dropped call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sipnemo.lab.spread import figures, histogram

PACKET_INTERVAL_MS = 20.0
"The silence between two packets of an undisturbed stream; a phone lists only what is longer, or lost."

DEAD_AFTER = 1.0
"A stream silent for this many seconds when the calls are hung up has not survived."


HEARD_AFTER = 0.2
"Seconds from when a gateway has seen media on the new path until a phone has certainly heard it."


class Gap(NamedTuple):
    """One interruption of a received stream."""

    at: float
    "Arrival of the first packet after it, monotonic seconds."

    gap_ms: float
    "Silence before that packet."

    lost: int
    "Packets that never came."

    stalled_ms: float = 0.0
    "How much of the silence is the sender's own slowness, where it tells."


@dataclass(frozen=True, slots=True)
class Stream:
    """What one phone received of one call."""

    received: int = 0
    "Packets."

    last_at: float = 0.0
    "Arrival of the last one."

    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One call and how it fared. `up` is what the far end received, `down` what the phone inside received."""

    call_id: str
    caller: str
    callee: str
    answered_at: float | None = None
    ended_at: float | None = None
    "When it ended before it was hung up; None for a call that lived."

    up: Stream = field(default_factory=Stream)
    down: Stream = field(default_factory=Stream)

    hung_up_at: float | None = None
    "When it was hung up, if that was before the rest."

    measured: bool = True
    "Its media come often enough to tell gaps; of others only that they live counts."

    def dropped(self, hangup_at: float) -> str:
        """Why the call counts as dropped, or empty."""
        if self.answered_at is None:
            return "never answered"
        if self.hung_up_at is not None:
            hangup_at = min(hangup_at, self.hung_up_at)
        if self.ended_at is not None:
            return f"ended {hangup_at - self.ended_at:.1f} s before it was hung up"
        for name, stream in (("up", self.up), ("down", self.down)):
            if stream.last_at < hangup_at - DEAD_AFTER:
                return f"no media {name} at the end"
        return ""


class Event(NamedTuple):
    """One thing done to the world."""

    at: float
    text: str
    "For people: 'uplink 1 unplugged'."

    line: str = ""
    "The line it was done to."

    expects_move: bool = False
    "Calls have to move because of it; otherwise it only closes the window before."

    closes: bool = True
    "Whether gaps that end after it are no longer due to what was done before."

    minor: bool = False
    "One of many of a kind: a drawing does not name it."


@dataclass(frozen=True, slots=True)
class Move:
    """One move as the gateway tells it, and the event that made it."""

    event: Event
    cause: str
    from_path: str
    to_path: str
    detected_at: float | None
    call_ids: tuple[str, ...]
    done_at: float | None = None
    "When the last of its calls had been moved, where that is known."


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a report is made of."""

    rtt_ms: float
    calls: tuple[Call, ...]
    events: tuple[Event, ...]
    moves: tuple[Move, ...]
    started_at: float
    hangup_at: float


def attributed(stream: Stream, start: float, end: float) -> tuple[float, int]:
    """Longest silence (ms) and packets lost of a stream in a window; the packet interval when nothing was amiss."""
    inside = [gap for gap in stream.gaps if start <= gap.at < end]
    return max([PACKET_INTERVAL_MS, *(gap.gap_ms for gap in inside)]), sum(gap.lost for gap in inside)


def window(run: Run, move: Move) -> tuple[float, float]:
    """From the event that made the move to the next event, or until it is over if that is later, or to the hang-up."""
    later = [event.at for event in run.events if event.at > move.event.at and event.closes]
    over = move.event.at if move.done_at is None else move.done_at + HEARD_AFTER
    return move.event.at, min(max(min(later, default=run.hangup_at), over), run.hangup_at)


def move_report(run: Run, move: Move) -> dict[str, Any]:
    """One move of report.json."""
    start, end = window(run, move)
    rows: list[dict[str, Any]] = []
    moved = set(move.call_ids)
    for call in run.calls:
        if call.call_id in moved and call.measured:
            (gap_up, lost_up), (gap_down, lost_down) = (attributed(s, start, end) for s in (call.up, call.down))
            rows.append(
                {
                    "call_id": call.call_id,
                    "gap_up_ms": round(gap_up, 1),
                    "gap_down_ms": round(gap_down, 1),
                    "lost_up": lost_up,
                    "lost_down": lost_down,
                }
            )
    detected = None if move.detected_at is None else round(max(0.0, (move.detected_at - start) * 1e3), 1)
    if move.cause == "command":
        detected = 0.0  # the gateway was told; what passed is the start of our own `sipnemo path`
    names = ("gap_up_ms", "gap_down_ms", "lost_up", "lost_down")
    return {
        "event": move.event.text,
        "cause": move.cause,
        "at": round(start - run.started_at, 3),
        "from_path": move.from_path,
        "to_path": move.to_path,
        "detected_ms": detected,
        "calls_moved": sum(call.call_id in moved for call in run.calls),
        **{name: figures(row[name] for row in rows)._asdict() for name in names},
        "histogram": {name: histogram(row[name] for row in rows) for name in names},
        "per_call": rows,
    }


def run_report(run: Run) -> dict[str, Any]:
    """The whole of report.json."""
    reasons = {call.call_id: reason for call in run.calls if (reason := call.dropped(run.hangup_at))}
    return {
        "calls": len(run.calls),
        "dropped": len(reasons),
        "rtt_ms": run.rtt_ms,
        "duration_s": round(run.hangup_at - run.started_at, 1),
        "moves": [move_report(run, move) for move in run.moves],
        "dropped_calls": reasons,
        "events": [{"at": round(event.at - run.started_at, 3), "event": event.text} for event in run.events],
    }


def stream_from(record: Mapping[str, Any]) -> Stream:
    """A phone's media record as a `Stream`; what is missing counts as nothing received."""
    gaps = tuple(
        Gap(float(gap["at"]), float(gap["gap_ms"]), int(gap.get("lost", 0)), float(gap.get("stalled_ms", 0.0)))
        for gap in record.get("gaps", ())
    )
    return Stream(int(record.get("packets", 0)), float(record.get("last_at") or 0.0), gaps)


def write_json(report: Mapping[str, Any], path: Path) -> None:
    """Write report.json."""
    path.write_text(json.dumps(report, indent=2) + "\n")
