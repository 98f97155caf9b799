"""A real phone as a test hears it: what it has told since it was started."""

from __future__ import annotations

import subprocess
from typing import Any

from .hosts import wait_until

Event = dict[str, Any]


class TellsEvents:
    """What the drivers of phones have in common; each knows how to read its own program."""

    user: str
    events: list[Event]
    _process: subprocess.Popen[bytes]

    def wait_for(self, kind: str, timeout: float = 15.0, number: int = 1) -> Event:
        """Wait for the `number`th event of this type since the start: CALL_ESTABLISHED, CALL_CLOSED, …"""
        name = f"{type(self).__name__} {self.user}"

        def seen() -> Event | None:
            self._read(0.02)
            assert self._process.poll() is None, f"{name} ended:\n{self._tail()}"
            found = [event for event in self.events if event["type"] == kind]
            return found[number - 1] if len(found) >= number else None

        try:
            return wait_until(seen, timeout, f"{kind} at {name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; events: {[event['type'] for event in self.events]}") from None

    def count(self, kind: str) -> int:
        """How many events of this type have come so far."""
        self._read(0.0)
        return sum(event["type"] == kind for event in self.events)

    def _read(self, patience: float) -> None:
        """Take in what the program has to say, waiting for it so many seconds."""
        raise NotImplementedError

    def _tail(self) -> str:
        """The end of its log."""
        raise NotImplementedError
