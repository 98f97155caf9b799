"""A virtual clock: what is to happen, in order; equal instants in the order they were asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any


class Clock:
    """Time passes from event to event."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        "Not 0: nodes must not depend on where the clock begins."
        self.events = 0
        "How many things have happened."
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()

    def at(self, instant: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call the function then."""
        heapq.heappush(self._queue, (instant, next(self._order), function, arguments))

    def after(self, span: float, function: Callable[..., None], *arguments: Any) -> None:
        """Call the function in `span` seconds."""
        heapq.heappush(self._queue, (self.now + span, next(self._order), function, arguments))

    def run(self, until: float) -> None:
        """Let everything happen that is due until then."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= until:
            at, _, function, arguments = pop(queue)
            if at > self.now:
                self.now = at
            self.events += 1
            function(*arguments)
        self.now = max(self.now, until)
