"""How many requests may be unanswered at a time, and how fast octets may leave: TCP's ideas, for re-INVITEs.

Plain numbers: whoever sends asks and tells. Spans and instants are seconds.
"""

from __future__ import annotations

from typing import Final

from sipnemo.sip.timers import T1

LEAST: Final = 10.0
"Requests that may always be under way (RFC 6928)."
STEADY: Final = 1.5
"While answers take no more than this many times the shortest round trip, the window grows."
CROWDED: Final = 3.0
"From this many times on, requests queue somewhere, and the window shrinks."
SLACK: Final = 0.1
"Of both, in seconds: a far end and a busy gateway need time of their own."
EASE: Final = 0.7


class Window:
    """Requests under way without any answer, at most `size`.

    It opens by one with every answer (slow start) up to where it last had to close, then by one in each round trip
    (RFC 5681 §3.1). A loss closes it to what did get through since the last: a link that loses one packet in ten costs
    a tenth, a queue that overflows nearly all. Answers that grow late close it before anything is lost.
    """

    __slots__ = ("_eased_at", "_heard", "base", "size", "smoothed", "threshold")

    def __init__(self, size: float, base: float | None = None) -> None:
        self.size = max(LEAST, size)
        self.threshold = float("inf")
        self.base = base
        "The shortest round trip known."
        self.smoothed = base
        self._heard = 0
        "Answers since the window last closed."
        self._eased_at = float("-inf")

    def answered(self, span: float | None, now: float) -> None:
        """An answer has come `span` after its request; None when that was repeated, so that nobody knows (RFC 6298)."""
        self._heard += 1
        if span is not None:
            self.base = span if self.base is None else min(self.base, span)
            self.smoothed = span if self.smoothed is None else 0.875 * self.smoothed + 0.125 * span
        base, smoothed = self.base or 0.0, self.smoothed or 0.0
        if smoothed <= STEADY * base + SLACK:
            self.size += 1.0 if self.size < self.threshold else 1.0 / self.size
        elif smoothed > CROWDED * base + SLACK:
            self._close(self.size * EASE, now)

    def lost(self, now: float) -> None:
        """No answer has come in time."""
        self._close(min(self.size, float(self._heard)), now)

    def _close(self, size: float, now: float) -> None:
        if now < self._eased_at + max(T1, self.smoothed or 0.0):
            return  # the same trouble, seen again
        self.size = self.threshold = max(LEAST, size)
        self._heard = 0
        self._eased_at = now

    @property
    def patience(self) -> float:
        """How long an answer may take before the request is repeated: T1, more on a slow path (RFC 3261 §17.1.1.1)."""
        return max(T1, 2.0 * (self.smoothed or 0.0))


class Meter:
    """A flow of octets or requests, kept to a rate: each takes its time, and the next may leave when it is over."""

    __slots__ = ("_burst", "free_at")

    def __init__(self, burst: float = 0.0) -> None:
        self.free_at = float("-inf")
        "When all that has been taken would have left at the rate."
        self._burst = burst
        "Seconds by which what leaves may be ahead of the rate."

    @property
    def ready_at(self) -> float:
        """When the next may leave."""
        return self.free_at - self._burst

    def take(self, amount: float, rate: float, now: float) -> None:
        """Something leaves now; a negative amount gives back what was taken too much."""
        self.free_at = max(self.free_at, now) + amount / rate
