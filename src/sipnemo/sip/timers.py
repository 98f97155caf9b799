"""Timer values of RFC 3261 §17 and one queue for everything a node waits for. No clock: `now` comes in."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

T1: Final = 0.5
"Round-trip estimate, seconds (RFC 3261 §17.1.1.1)."
T2: Final = 4.0
"Longest interval between retransmissions of non-INVITE requests and INVITE responses."
T4: Final = 5.0
"How long a message may stay in the network."
TIMEOUT: Final = 64 * T1
"Timers B, F, H, J, L and M."
TIMER_C: Final = 181.0
"A proxy's patience with a ringing INVITE (§16.6 item 11): more than three minutes."
TIMER_D: Final = 32.0

_SLOTS: Final = 1000.0
"Slots per second: timers are rounded up to the next millisecond and share a list."


class Timer:
    """One pending call; `cancel` is immediate, the entry itself leaves the queue when its time comes."""

    __slots__ = ("at", "function")

    def __init__(self, at: float, function: Callable[[float], None]) -> None:
        self.at = at
        self.function: Callable[[float], None] | None = function

    def cancel(self) -> None:
        """Never call the function."""
        self.function = None


class TimerQueue:
    """A calendar of millisecond slots: setting a timer is an append, whatever is pending."""

    def __init__(self) -> None:
        self._slots: dict[int, list[Timer]] = {}
        self._order: list[int] = []

    def set(self, at: float, function: Callable[[float], None]) -> Timer:
        """Call `function(now)` when `now` reaches `at`."""
        timer = Timer(at, function)
        slot = int(at * _SLOTS) + 1
        entries = self._slots.get(slot)
        if entries is None:
            self._slots[slot] = [timer]
            heapq.heappush(self._order, slot)
        else:
            entries.append(timer)
        return timer

    @property
    def deadline(self) -> float | None:
        """When `fire` has something to do at the earliest; slots of cancelled timers are dropped on the way."""
        order, slots = self._order, self._slots
        while order:
            for timer in slots[order[0]]:
                if timer.function is not None:
                    return order[0] / _SLOTS
            del slots[heapq.heappop(order)]
        return None

    def fire(self, now: float) -> None:
        """Call everything that is due, in order."""
        due = int(now * _SLOTS + 1e-6)
        order = self._order
        while order and order[0] <= due:
            for timer in self._slots.pop(heapq.heappop(order)):
                function = timer.function
                if function is not None:
                    timer.function = None
                    function(now)

    def __len__(self) -> int:
        """How many timers are pending."""
        return sum(timer.function is not None for entries in self._slots.values() for timer in entries)
