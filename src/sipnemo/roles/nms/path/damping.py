"""A path that comes and goes is used last, until it has been quiet for a while (after RFC 2439).

Every time a path fails of itself its penalty grows by one, and it halves in each `half_life`. Above `suppress` the path
is ranked behind all that are not suppressed, below `reuse` as before. So a suppressed path is still there for calls
that have no other: nothing ever waits because of damping, and nothing is moved away because of it.

How often a call can be moved follows (docs/operations.md has the reasoning): in T seconds, for each path, at most
reuse + (suppress + 1 - reuse) · (1 + T/R) + suppress · ln 2 · T/half_life times, with R = half_life ·
log2(suppress/reuse), the shortest suppression; and besides only when a suppressed path fails, used for want of better.
"""

from __future__ import annotations

from math import log, log2
from typing import TYPE_CHECKING

from sipnemo.roles.nms.settings import DampingSettings
from sipnemo.roles.node import Count
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path


class Penalty:
    """What a path's failures weigh."""

    __slots__ = ("_at", "_settings", "_value", "flaps")

    def __init__(self, settings: DampingSettings) -> None:
        self._settings = settings
        self._value = 0.0
        self._at = 0.0
        self.flaps = 0
        "All that there were."

    def at(self, now: float) -> float:
        """The penalty as it is now."""
        return self._value * float(0.5 ** ((now - self._at) / self._settings.half_life))

    def flap(self, now: float) -> bool:
        """One more failure; whether the path is to be suppressed now."""
        settings = self._settings
        self.flaps += 1
        most = settings.reuse * 2.0 ** (settings.longest / settings.half_life)
        self._value = min(self.at(now) + 1.0, max(most, settings.suppress + 1.0))
        self._at = now
        return self._value > settings.suppress

    @property
    def weight(self) -> float:
        """What orders penalties, at any time, since all of them halve together."""
        return log2(self._value) + self._at / self._settings.half_life

    def reuse_after(self, now: float) -> float:
        """Seconds until it has fallen to `reuse`, at most `longest`."""
        settings, value = self._settings, self.at(now)
        if value <= settings.reuse:
            return 0.0
        return min(settings.half_life * log2(value / settings.reuse), self._at + settings.longest - now)


def most_moves(settings: DampingSettings, span: float, paths: int) -> float:
    """How often flapping paths can move one call in `span` seconds, while one that is not suppressed is ON."""
    shortest = min(settings.half_life * log2(settings.suppress / settings.reuse), settings.longest)
    spells = (settings.suppress + 1.0 - settings.reuse) * (1.0 + span / shortest)
    return paths * (settings.reuse + spells + settings.suppress * log(2.0) * span / settings.half_life)


class Damping:
    """The penalties of all paths; they outlive the paths, whose addresses may come and go."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._penalties: dict[int, Penalty] = {}
        "By reg-id: a new address in the place of an old one is the same path, as far as flapping goes."
        self.suppressed: dict[int, Timer] = {}
        "By reg-id; when each may be used again."

    def flapped(self, path: Path, cause: str, now: float) -> None:
        """A path has gone OFF; by the operator's word that is no failure."""
        settings = self._node.settings.damping
        if cause == "command":
            return
        penalty = self._penalties.setdefault(path.reg_id, Penalty(settings))
        if not penalty.flap(now) and path.reg_id not in self.suppressed:
            return
        known = self.suppressed.pop(path.reg_id, None)
        if known is not None:
            known.cancel()
        after = penalty.reuse_after(now)
        self.suppressed[path.reg_id] = self._node.timers.set(now + after, lambda at: self._reuse(path.reg_id, at))
        if known is None:
            self._node.act(Count("paths_suppressed"))
            self._node.log(
                "warning", "path flaps: used last", path=path.name, flaps=penalty.flaps, reuse_after=round(after, 1)
            )

    def is_suppressed(self, path: Path) -> bool:
        """Whether other paths come first; the operator's `on` is stronger."""
        return path.reg_id in self.suppressed and not path.forced

    def last(self, ranked: list[Path]) -> list[Path]:
        """The same paths, suppressed ones behind the others; of these, the one that flapped least first."""
        free = [path for path in ranked if not self.is_suppressed(path)]
        rest = [path for path in ranked if self.is_suppressed(path)]
        return free + sorted(rest, key=lambda path: self._penalties[path.reg_id].weight)

    def penalty(self, path: Path, now: float) -> float:
        """The penalty of a path."""
        known = self._penalties.get(path.reg_id)
        return known.at(now) if known is not None else 0.0

    def row(self, path: Path, now: float) -> dict[str, float | None]:
        """For `sipnemo paths`."""
        known = self._penalties.get(path.reg_id)
        suppressed = self.is_suppressed(path) and known is not None
        return {
            "flaps": known.flaps if known is not None else 0,
            "penalty": round(self.penalty(path, now), 2),
            "reuse_in": round(known.reuse_after(now), 1) if suppressed and known is not None else None,
        }

    def _reuse(self, reg_id: int, now: float) -> None:
        del self.suppressed[reg_id]
        for path in self._node.paths.all:
            if path.reg_id == reg_id:
                self._node.log("info", "path has been quiet: used as before", path=path.name)
                self._node.returning.maybe(path, now)
