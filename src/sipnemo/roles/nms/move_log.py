"""What happened when calls changed their path: the rows of `sipnemo moves`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from sipnemo.roles.nms.paths import Path
    from sipnemo.roles.nms.session import Session


class MoveRecord:
    """One call's move, as it ended."""

    __slots__ = ("answered_after", "call_id", "first_media_after", "outcome", "path", "reason")

    def __init__(
        self,
        session: Session,
        path: Path | None,
        outcome: str,
        reason: str,
        answered_after: float | None,
        first_media_after: float | None,
    ) -> None:
        self.call_id = session.call_id
        self.path = path.name if path is not None else session.path.name
        "Where it moved to."
        self.outcome = outcome
        "verified, unverified, failed, overtaken (by another move), hung up, or waiting (for a request of the phone's)."
        self.reason = reason
        "Empty when verified."
        self.answered_after = answered_after
        "Seconds from the beginning until the SIP-CN's answer."
        self.first_media_after = first_media_after
        "Seconds from the beginning until the first packet of the SIP-CN on the new path."


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
    "carrier, address, probe, nat or command."

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

    @property
    def gap_up(self) -> float:
        """Silence that the SIP-CNs hear, in seconds: the uplink direction moves the moment the loss is known."""
        return 0.0 if self.planned else self.silent_for

    def gap_down(self, record: MoveRecord) -> float | None:
        """Silence that the SIP-MN heard, in seconds, as far as the gateway can tell."""
        if record.first_media_after is None:
            return None
        return 0.0 if self.planned else self.silent_for + record.first_media_after

    def row(self, each: bool = True) -> dict[str, Any]:
        """This wave as operators see it; JSON-able. `each`: with every call."""
        row: dict[str, Any] = {
            "move": self.number,
            "at": self.began_at,
            "cause": self.cause,
            "planned": self.planned,
            "from_path": self.from_path,
            "to_paths": _count([record.path for record in self.records if record.outcome != "hung up"]),
            "detected_ms": round(self.silent_for * 1000, 1),
            "calls": self.calls,
            "ended": _count([record.outcome for record in self.records]),
            "reasons": _count([record.reason for record in self.records if record.reason]),
            "invites": self.invites,
            "answered_ms": Spread.of([record.answered_after for record in self.records]),
            "gap_up_ms": Spread.of([self.gap_up for record in self.records if record.outcome != "hung up"]),
            "gap_down_ms": Spread.of([self.gap_down(record) for record in self.records]),
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
            "answered_ms": _milliseconds(record.answered_after),
            "gap_up_ms": _milliseconds(self.gap_up),
            "gap_down_ms": _milliseconds(self.gap_down(record)),
        }


def _milliseconds(span: float | None) -> float | None:
    return None if span is None else round(span * 1000, 1)


def _count(words: list[str]) -> dict[str, int]:
    return {word: words.count(word) for word in dict.fromkeys(words)}
