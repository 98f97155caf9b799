"""Offers written beforehand: when a path becomes doubtful, what its calls would say of the next best one (RO-10).

The first late probe of a path comes some round trips before it is given up. In that time, a few calls at once so that
packets are not kept waiting, the descriptions are rendered that re-INVITEs over the next best path would carry. They
are the dear part of a re-INVITE (docs/architecture.md has the figures); the rest of its text, which names branch, CSeq
and hop, is cheap. Nothing is prepared for calls whose path is in no doubt: it would cost every call what few need.
An offer that is not used, or has become wrong, is dropped.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

AT_ONCE: Final = 10
"Calls between two looks at what else has come in: about half a millisecond."


class Preparing:
    """Prepares the calls of one doubtful path after the other."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._queue: deque[tuple[Path, Session]] = deque()
        self._timer: Timer | None = None

    def doubt(self, path: Path, now: float) -> None:
        """This path may have to be left soon."""
        if len(self._node.paths.on()) > 1 and not self._queue:
            self._queue.extend((path, session) for session in path.sessions)
            self._wake(now)

    def _some(self, now: float) -> None:
        self._timer = None
        node = self._node
        for _ in range(min(AT_ONCE, len(self._queue))):
            path, session = self._queue.popleft()
            if session.path is path and session.live and session.move is None and session.media is not None:
                best = next((other for other in node.ranked(session) if other is not path), None)
                if best is not None:
                    session.media.prepare(best.media_host)
        self._wake(now)

    def _wake(self, now: float) -> None:
        if self._queue and self._timer is None:
            self._timer = self._node.timers.set(now, self._some)
