"""Wait, handle, perform: brings every input to the node and every action to what performs it.

Whatever happens outside ends in `Runtime.feed`; whatever the node wants ends in the function registered for that
kind of action with `perform`. No SIP knowledge here, and no outside thing either: `server.py` joins them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from sipnemo.roles.node import Action, Finished, Input, Node, Stop, Tick
from sipnemo.shell.recording import Recorder

logger = logging.getLogger("sipnemo.shell")

A = TypeVar("A")

BUG_PAUSE = 0.1
"Seconds until the next Tick after one that raised: a node that cannot pass its deadline must not spin."

STOP_WITHIN = 5.0
"Seconds a node has to say goodbye."


class Runtime:
    """The one loop around a node. Not re-entrant: what is fed while an input is handled waits its turn."""

    def __init__(
        self, node: Node, *, recorder: Recorder | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bugs = 0
        "Exceptions that came out of the node or out of a performed action."

        self.on_bug: Callable[[], None] = lambda: None
        "Called once per bug; for a metric."

        self._node = node
        self._handle = node.handle
        self._recorder = recorder
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._performers: dict[type, Callable[[Any], object]] = {Finished: self._finished}
        self._busy = False
        self._waiting: deque[Input] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = float("inf")
        self._not_before = 0.0
        self._done = asyncio.Event()
        self._closed = False

    def perform(self, kind: type[A], performer: Callable[[A], object]) -> None:
        """Have actions of this kind performed by this function. It must not block."""
        self._performers[kind] = performer

    def feed(self, input: Input) -> None:
        """Bring one input to the node and perform what follows from it."""
        waiting = self._waiting
        if self._busy:
            waiting.append(input)
            return
        if self._closed:
            return
        self._busy = True
        try:
            self._step(input)
            while waiting:
                self._step(waiting.popleft())
        finally:
            self._busy = False
        # Armed only when the deadline comes nearer; a timer that fires too early just arms the next one. Deadlines
        # mostly move away (a transaction ends, another takes its place), so nearly every input leaves the timer be.
        deadline = self._node.deadline
        if deadline is not None and deadline < self._armed:
            self._arm(deadline)

    def _step(self, input: Input) -> None:
        now = self._clock()
        if self._recorder is not None:
            self._recorder.record(now, input)
        try:
            actions = self._handle(input, now)
        except Exception:
            self._bug(f"The node failed on {type(input).__name__}")
            if isinstance(input, Tick):
                self._not_before = now + BUG_PAUSE
            return
        performers = self._performers
        for action in actions:
            try:
                performers[type(action)](action)
            except Exception:
                self._bug(_not_performed(action, performers))

    def start(self) -> None:
        """Wake the node for the first time: it may have a deadline, or sockets to ask for, before any input comes."""
        self.feed(Tick())

    async def stop(self, within: float = STOP_WITHIN) -> bool:
        """Ask the node to end and wait for `Finished`; False when it did not come in time."""
        if not self._closed:
            self.feed(Stop())
        try:
            await asyncio.wait_for(self._done.wait(), within)
        except TimeoutError:
            logger.warning("The node was not done %g s after it was asked to stop; stopping without it", within)
            return False
        return True

    def close(self) -> None:
        """Bring nothing more to the node."""
        self._closed = True
        self._disarm()
        if self._recorder is not None:
            self._recorder.close()

    def _finished(self, _action: Finished) -> None:
        self._done.set()

    def _arm(self, deadline: float) -> None:
        if self._closed:
            return
        self._disarm()
        self._armed = deadline
        self._timer = self._loop.call_later(
            max(0.0, deadline - self._clock(), self._not_before - self._clock()), self._tick
        )

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed = float("inf")

    def _tick(self) -> None:
        self._timer = None
        self._armed = float("inf")
        deadline = self._node.deadline
        if deadline is None:
            return
        if deadline > self._clock():
            self._arm(deadline)
        else:
            self.feed(Tick())

    def _bug(self, what: str) -> None:
        self.bugs += 1
        recorded = ""
        if self._recorder is not None:
            self._recorder.flush()
            recorded = f"; recorded in {self._recorder.path}"
        logger.exception("%s (this is a bug in sipnemo; the service goes on)%s", what, recorded)
        self.on_bug()


def _not_performed(action: Action, performers: dict[type, Callable[[Any], object]]) -> str:
    name = type(action).__name__
    return f"{name} was not performed" if type(action) in performers else f"{name}: nothing here performs it"
