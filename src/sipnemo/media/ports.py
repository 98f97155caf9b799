"""Media ports: pairs of an even RTP and the next odd RTCP port (RFC 3550 §11), unpredictable, rested before reuse."""

from __future__ import annotations

import hashlib
import struct
from collections import deque


class PortPool:
    """Pairs within first … last. With rtcp-mux (RFC 5761) a pair is taken too: the peer may yet decline it.

    Each allocation takes one of the free pairs by a keyed draw, so that who knows one call's port cannot guess the
    next one's; a pair that was released rests, so that the last packets of one call do not reach another.
    """

    def __init__(self, first: int, last: int, quarantine_after: float, seed: str) -> None:
        if not 0 < first <= last < 65536:
            raise ValueError(f"ports {first}-{last}: want 1 <= first <= last <= 65535")
        self.first = first
        self.last = last
        self.quarantine_after = quarantine_after
        "Seconds a released pair rests."

        self._seed = seed.encode()
        self._draws = 0
        self._drawn: list[int] = []
        "Random numbers for the next draws: one digest serves eight."
        self._free = list(range(first + first % 2, last, 2))
        self._used: dict[int, float] = {}
        self._resting: deque[tuple[float, int]] = deque()

        self.size = len(self._free)
        "Pairs there are."

        self.exhausted = 0
        "Requests that no pair was free for."

        self.misreleased = 0
        "Releases of a pair that was not allocated: a sign of a leak elsewhere."

        if not self._free:
            raise ValueError(f"ports {first}-{last} hold no pair of an even port and the next odd one")

    @property
    def used(self) -> int:
        """Pairs allocated and not yet released."""
        return len(self._used)

    @property
    def resting(self) -> int:
        """Pairs released that may not be reused yet (as of the last call with `now`)."""
        return len(self._resting)

    def allocate(self, now: float) -> int | None:
        """The even port of a pair that is free, or None when all are used or resting."""
        self._wake(now)
        if not self._free:
            self.exhausted += 1
            return None
        # Swap-and-pop keeps a draw O(1) whatever the size of the pool.
        chosen = self._draw(len(self._free))
        self._free[chosen], self._free[-1] = self._free[-1], self._free[chosen]
        port = self._free.pop()
        self._used[port] = now
        return port

    def release(self, port: int, now: float, rest: bool = True) -> None:
        """Give a pair back; it rests first, if packets may be late. What is not allocated is only counted."""
        if self._used.pop(port, None) is None:
            self.misreleased += 1
            return
        if rest:
            self._resting.append((now + self.quarantine_after, port))
        else:
            self._free.append(port)

    def _wake(self, now: float) -> None:
        while self._resting and self._resting[0][0] <= now:
            self._free.append(self._resting.popleft()[1])

    def _draw(self, choices: int) -> int:
        """A number below `choices` that nobody without the seed can foretell."""
        if not self._drawn:
            self._draws += 1
            digest = hashlib.blake2b(self._draws.to_bytes(8, "big"), key=self._seed[:64]).digest()
            self._drawn = [*struct.unpack(">8Q", digest)]
        return self._drawn.pop() % choices
