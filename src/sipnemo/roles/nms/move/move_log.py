"""What happened when calls changed their path: the rows of `sipnemo moves`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sipnemo.roles.nms.move.outcome import Outcome, Reason

if TYPE_CHECKING:
    from sipnemo.roles.nms.move.reinvite import Move


class MoveRecord(NamedTuple):
    """One call's move, as it ended."""

    call_id: str

    path: str
    "Where it moved to."

    outcome: Outcome

    reason: Reason
    "Empty when verified."

    detail: str
    "What the SIP-CN answered, when it refused."

    answered_after: float | None
    "Seconds from the beginning until the SIP-CN's answer."

    gap_up: float | None
    "Silence that the SIP-CN heard, in seconds: the uplink direction moves the moment the loss is known."

    gap_down: float | None
    "Silence that the SIP-MN heard, in seconds, as far as the gateway can tell."

    media: tuple[str, str]
    "Up and down: seen, held, silent or missing."

    @classmethod
    def of(cls, move: Move, outcome: Outcome, reason: Reason, detail: str) -> MoveRecord:
        """What is to be remembered of a move that ends now."""
        path = move.path or move.session.path
        seen = move.checking.seen
        # The first RTCP packet of a SIP-CN that was silent anyway is the end of nobody's silence.
        heard_at = move.checking.heard_at if seen.speaks else None
        up = None if outcome is Outcome.HUNG_UP else 0.0 if move.planned else move.silent_for
        down = (
            None if heard_at is None else 0.0 if move.planned else move.silent_for + max(0.0, heard_at - move.lost_at)
        )
        media = seen.per_direction(path.address)
        return cls(move.session.call_id, path.name, outcome, reason, detail, move.answered_after, up, down, media)


class Spread(NamedTuple):
    """Median and worst of some spans, in milliseconds."""

    median: float
    worst: float

    @classmethod
    def of(cls, spans: list[float | None]) -> dict[str, float] | None:
        """Of those that are known; None when none is."""
        known = sorted(span for span in spans if span is not None)
        if not known:
            return None
        return cls(round(known[len(known) // 2] * 1000, 1), round(known[-1] * 1000, 1))._asdict()


@dataclass(slots=True)
class Wave:
    """All calls that left one path for one cause."""

    number: int
    cause: str
    "carrier, address, probe, nat, command or return."

    from_path: str
    planned: bool
    "The path still worked, so nothing need be lost."

    began_at: float
    "When the path was found OFF, or the command came."

    silent_for: float
    "Seconds for which the path had already been silent then; 0.0 where the kernel told of the loss."

    calls: int = 0
    moving: int = 0
    "Of them, those whose move has begun and not ended."

    invites: int = 0
    "Re-INVITEs sent, repeated attempts included."

    records: list[MoveRecord] = field(default_factory=list)
    done_at: float | None = None

    def add(self, record: MoveRecord, before: MoveRecord | None = None) -> None:
        """One call's move has ended, or goes on after it was put off (`before`)."""
        if before is None:
            self.records.append(record)
        else:
            self.records[self.records.index(before)] = record

    def row(self, each: bool = True) -> dict[str, Any]:
        """This wave as operators see it; JSON-able. `each`: with every call."""
        row: dict[str, Any] = {
            "move": self.number,
            "at": self.began_at,
            "cause": self.cause,
            "planned": self.planned,
            "from_path": self.from_path,
            "to_paths": _count([record.path for record in self.records if record.outcome is not Outcome.HUNG_UP]),
            "detected_ms": round(self.silent_for * 1000, 1),
            "calls": self.calls,
            "ended": _count([record.outcome for record in self.records]),
            "reasons": _count([record.reason for record in self.records if record.reason]),
            "invites": self.invites,
            "answered_ms": Spread.of([record.answered_after for record in self.records]),
            "gap_up_ms": Spread.of([record.gap_up for record in self.records]),
            "gap_down_ms": Spread.of([record.gap_down for record in self.records]),
            "duration_ms": None if self.done_at is None else round((self.done_at - self.began_at) * 1000, 1),
        }
        if each:
            row["each"] = [self._one(record) for record in self.records]
        return row

    def _one(self, record: MoveRecord) -> dict[str, Any]:
        return {
            "call_id": record.call_id,
            "to_path": record.path,
            "ended": record.outcome,
            "reason": record.reason,
            "detail": record.detail,
            "answered_ms": _milliseconds(record.answered_after),
            "gap_up_ms": _milliseconds(record.gap_up),
            "gap_down_ms": _milliseconds(record.gap_down),
            "media_up": record.media[0],
            "media_down": record.media[1],
        }


def _milliseconds(span: float | None) -> float | None:
    return None if span is None else round(span * 1000, 1)


def _count(words: list[str]) -> dict[str, int]:
    return {word: words.count(word) for word in dict.fromkeys(words)}
