"""Calls go back to a better path, if the operator wants it: one class of calls at a time (R15).

A call stays on its path unless it is moved on purpose, and `return = "never"` is the default. Otherwise, when a path
has been ON for `return_after` and is not suppressed, the calls that the policy would put there move as planned, which
loses no packet: first those that carry no speech, then those that do, the urgent ones last. Each class waits until all
moves of the one before have ended; when the far ends' media did not come, the return ends there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.nms.move.order import SPEAKING, rank
from sipnemo.roles.nms.move.outcome import Outcome, Reason
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.move.move_log import Wave
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

CLASSES: Final = ("idle", "speaking", "urgent")
FEW: Final = 0.1
"Share of a class that may fail, or not be heard on the better path, for the next class to follow."
_UNHEARD: Final = (Reason.NOT_HEARD, Reason.NOT_SENT)


class Returning:
    """At most one return is under way."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._timer: Timer | None = None
        self._classes: list[str] = []
        "Still to move, in the return under way."
        self._waves: list[Wave] = []
        "Of the class that is moving."

    def maybe(self, path: Path, now: float) -> None:
        """A path is ON, or not suppressed any more: look whether calls want it, when it has proved steady."""
        policy = self._node.settings.policy
        if policy.returning != "never":
            self._look_at(max(now, path.changed_at + policy.return_after), now)

    def wave_done(self, wave: Wave, now: float) -> None:
        """All moves of a wave have ended."""
        if wave in self._waves and all(known.done_at is not None for known in self._waves):
            records = [record for known in self._waves for record in known.records]
            bad = sum(record.outcome is Outcome.FAILED or record.reason in _UNHEARD for record in records)
            self._waves = []
            if bad > FEW * len(records):
                self._node.log("warning", "calls return no further", unheard=bad, of=len(records))
                self._classes = []
            else:
                self._next(now)

    def _look_at(self, at: float, now: float) -> None:
        if self._timer is not None and self._timer.at <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._node.timers.set(at, self._look)

    def _look(self, now: float) -> None:
        self._timer = None
        if not self._waves:
            self._classes = list(CLASSES if self._node.settings.policy.returning == "by-class" else CLASSES[:1])
            self._next(now)
        waiting = [path.changed_at for path in self._node.paths.on() if not self._steady(path, now)]
        if waiting:
            self._look_at(min(waiting) + self._node.settings.policy.return_after, now)

    def _next(self, now: float) -> None:
        while self._classes and not self._waves:
            name = self._classes.pop(0)
            groups: dict[Path, list[Session]] = {}
            for session in self._node.calls.open:
                if self._class(session) == name and self._wants(session, now):
                    groups.setdefault(session.path, []).append(session)
            self._waves = [self._node.handover.bring_back(path, there, now) for path, there in groups.items()]
            if self._waves and all(wave.done_at is not None for wave in self._waves):
                self._waves = []

    def _class(self, session: Session) -> str:
        urgency, kind = rank(session, self._node.settings.policy)
        if kind != SPEAKING:
            return "idle"
        return "urgent" if urgency else "speaking"

    def _wants(self, session: Session, now: float) -> bool:
        """Whether this call has a better path than its own, a steady one, and can be moved now."""
        path = session.path
        if not session.live or session.ending or session.move is not None or not path.on:
            return False
        best = self._node.ranked(session)[0]
        return best is not path and self._steady(best, now) and not self._node.damping.is_suppressed(best)

    def _steady(self, path: Path, now: float) -> bool:
        return now >= path.changed_at + self._node.settings.policy.return_after - 0.001
