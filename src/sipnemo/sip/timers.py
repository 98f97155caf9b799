"""Timer values of RFC 3261 §17 and one queue for everything a node waits for. No clock: `now` comes in."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
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
    """One pending call; a cancelled one leaves nothing behind."""

    __slots__ = ("_slot", "at", "function")

    def __init__(self, slot: dict[Timer, None], at: float, function: Callable[[float], None]) -> None:
        self._slot = slot
        self.at = at
        self.function = function

    def cancel(self) -> None:
        """Never call the function."""
        self._slot.pop(self, None)


class TimerQueue:
    """A calendar of millisecond slots: setting and cancelling cost the same, whatever is pending."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[Timer, None]] = {}
        self._order: list[int] = []

    def set(self, at: float, function: Callable[[float], None]) -> Timer:
        """Call `function(now)` when `now` reaches `at`."""
        number = int(at * _SLOTS) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heappush(self._order, number)
        slot[timer := Timer(slot, at, function)] = None
        return timer

    @property
    def deadline(self) -> float | None:
        """When `fire` has something to do at the earliest; slots that have become empty are dropped on the way."""
        order, slots = self._order, self._slots
        while order:
            if slots[order[0]]:
                return order[0] / _SLOTS
            del slots[heappop(order)]
        return None

    def fire(self, now: float) -> None:
        """Call everything that is due, in order."""
        due = int(now * _SLOTS + 1e-6)
        order = self._order
        while order and order[0] <= due:
            slot = self._slots.pop(heappop(order))
            for timer in list(slot):
                if timer in slot:  # else one before it in the same slot has cancelled it
                    del slot[timer]
                    timer.function(now)

    def __len__(self) -> int:
        """How many timers are pending."""
        return sum(map(len, self._slots.values()))
