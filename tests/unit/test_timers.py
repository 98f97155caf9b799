"""The queue of everything that a node waits for."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from sipnemo.sip.timers import NEVER, TimerQueue


class Guest:
    """Waits in a line."""

    def __init__(self, served: Callable[[Guest], None] = lambda _guest: None) -> None:
        self.due_at = NEVER
        self.times: list[float] = []
        self._served = served

    def due(self, now: float) -> None:
        """Note when."""
        self.due_at = NEVER
        self.times.append(now)
        self._served(self)


def run(queue: TimerQueue, until: float) -> None:
    """Fire at every deadline up to an instant."""
    for _ in range(1000):
        if queue.next > until:
            return
        queue.fire(queue.next)
    raise AssertionError("the deadline does not move on")


def test_who_waits_in_a_line_is_served_once_when_the_span_is_over() -> None:
    queue = TimerQueue()
    line = queue.line(0.5)
    guests = [Guest() for _ in range(3)]
    for number, guest in enumerate(guests):
        line.join(guest, number / 10)
    run(queue, 10.0)
    assert [guest.times for guest in guests] == [[0.5], [0.6], [0.7]]
    assert (queue.next, len(queue)) == (NEVER, 0)


def test_who_waits_no_more_or_for_something_later_is_passed_over() -> None:
    queue = TimerQueue()
    short, long = queue.line(0.5), queue.line(5.0)
    gone, moved = Guest(), Guest()
    short.join(gone, 0.0)
    short.join(moved, 0.0)
    gone.due_at = NEVER
    long.join(moved, 0.25)
    assert len(queue) == 1
    run(queue, 10.0)
    assert (gone.times, moved.times) == ([], [5.25])


def test_those_that_may_wait_longer_are_served_together() -> None:
    queue = TimerQueue()
    line = queue.line(5.0, 0.25)
    guests = [Guest() for _ in range(10)]
    for number, guest in enumerate(guests):
        line.join(guest, number / 50)
    run(queue, 10.0)
    assert {time for guest in guests for time in guest.times} == {5.25}


def test_who_is_served_may_join_again() -> None:
    queue = TimerQueue()
    first, second = queue.line(1.0), queue.line(2.0)
    guest = Guest(lambda guest: first.join(guest, guest.times[-1]) if len(guest.times) < 3 else None)
    second.join(guest, 0.0)
    run(queue, 10.0)
    assert guest.times == [2.0, 3.0, 4.0]


def test_a_failure_makes_nobody_else_wait_for_ever() -> None:
    queue = TimerQueue()
    seen: list[float] = []

    def fail(_now: float) -> None:
        raise RuntimeError

    queue.set(1.0, fail)
    queue.set(2.0, seen.append)
    with pytest.raises(RuntimeError):
        queue.fire(1.5)
    run(queue, 10.0)
    assert seen == [2.001]


def test_a_flood_of_those_who_wait_no_more_does_not_fill_the_memory() -> None:
    queue = TimerQueue()
    line = queue.line(32.0)
    staying = Guest()
    line.join(staying, 0.0)
    for number in range(20_000):
        guest = Guest()
        line.join(guest, number / 10_000)
        guest.due_at = NEVER
        queue.leave()
    assert len(gc.get_referrers(Guest)) < 2000
    assert line.tidy() == 1
    run(queue, 40.0)
    assert staying.times == [32.0]
