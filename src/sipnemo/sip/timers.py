"""Timer values of RFC 3261 §17 and one queue for everything a node waits for. No clock: `now` comes in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, Protocol

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

NEVER: Final = float("inf")
"An instant that does not come."
_SLOTS: Final = 1000.0
"Slots per second: timers are rounded up to the next millisecond and share a list."


_FEW: Final = 1000
"So many who wait no more may stand in the lines."


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


class Waiting(Protocol):
    """Something that waits for one instant at a time."""

    due_at: float
    "When `due` has something to do; infinity: never, as things are."

    def due(self, now: float) -> None:
        """It is time."""


class Line:
    """Who waits for the same span: first come, first served.

    Nothing is to be found or taken out, so that joining costs a third of what setting a timer does. Who does not wait
    any more, or waits for something later, is passed over when its turn comes.
    """

    __slots__ = ("_queue", "_wait", "late", "span")

    def __init__(self, queue: TimerQueue, span: float, late: float) -> None:
        self._queue = queue
        self.span = span
        self.late = late
        "How much later than asked is as good, so that many are served at a time."
        self._wait: deque[tuple[float, Waiting]] = deque()

    def join(self, waiting: Waiting, now: float) -> None:
        """Call `waiting.due` when the span is over."""
        waiting.due_at = at = now + self.span
        if not self._wait:
            self._queue.hurry(at + self.late)
        self._wait.append((at, waiting))

    def serve(self, now: float) -> None:
        """Serve all whose time has come."""
        wait = self._wait
        while wait and wait[0][0] <= now:
            at, first = wait.popleft()
            if first.due_at == at:
                first.due_at = NEVER
                first.due(now)

    def next(self) -> float:
        """When somebody is to be served."""
        wait = self._wait
        while wait:
            at, first = wait[0]
            if first.due_at == at:
                return at + self.late
            wait.popleft()
        return NEVER

    def tidy(self) -> int:
        """Forget who waits no more; returns how many are left."""
        self._wait = deque([(at, waiting) for at, waiting in self._wait if waiting.due_at == at])
        return len(self._wait)

    def __len__(self) -> int:
        return sum(waiting.due_at == at for at, waiting in self._wait)


class TimerQueue:
    """A calendar of millisecond slots: setting and cancelling cost the same, whatever is pending."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[Timer, None]] = {}
        self._order: list[int] = []
        self._lines: dict[tuple[float, float], Line] = {}
        self.next = NEVER
        "Nothing is to be done before."
        self._left = 0
        "How many have left the lines before their time since these were tidied."
        self._patience = _FEW
        "How many may before they are tidied again."

    def set(self, at: float, function: Callable[[float], None]) -> Timer:
        """Call `function(now)` when `now` reaches `at`."""
        number = int(at * _SLOTS) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heappush(self._order, number)
            self.hurry(number / _SLOTS)
        slot[timer := Timer(slot, at, function)] = None
        return timer

    def set_roughly(self, at: float, function: Callable[[float], None]) -> Timer:
        """The same, up to a second later: what is mostly cancelled shares a slot with many others."""
        return self.set(int(at) + 1.0 - 0.5 / _SLOTS, function)

    def line(self, span: float, late: float = 0.0) -> Line:
        """The queue of those who wait for this span."""
        key = (span, late)
        if key not in self._lines:
            self._lines[key] = Line(self, span, late)
        return self._lines[key]

    def leave(self) -> None:
        """Somebody in a line waits no more: a flood of them must not fill the memory until their time would come."""
        self._left += 1
        if self._left >= self._patience:
            self._left = 0
            self._patience = _FEW + sum([line.tidy() for line in self._lines.values()])

    def hurry(self, at: float) -> None:
        """There is something to do at this instant."""
        if at < self.next:
            self.next = at

    def fire(self, now: float) -> None:
        """Call everything that is due, in order."""
        if now < self.next:
            return
        due = int(now * _SLOTS + 1e-6)
        order, slots = self._order, self._slots
        while order and order[0] <= due:
            slot = slots.pop(heappop(order))
            for timer in list(slot):
                if timer in slot:  # else one before it in the same slot has cancelled it
                    del slot[timer]
                    timer.function(now)
        lines = self._lines.values()
        for line in lines:
            line.serve(now)
        while order and not slots[order[0]]:
            del slots[heappop(order)]  # all of its timers have been cancelled
        following = [line.next() for line in lines]
        if order:
            following.append(order[0] / _SLOTS)
        self.next = min(following, default=NEVER)

    def __len__(self) -> int:
        """How many timers are pending."""
        return sum(map(len, self._slots.values())) + sum(map(len, self._lines.values()))
