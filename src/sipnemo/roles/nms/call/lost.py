"""Calls whose two ends have vanished: nobody will send a BYE, so the gateway does, and keeps nothing for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.node import Count

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer

CHECK_EVERY = 5.0
"Seconds between two looks at all calls."
GRACE = 32.0
"Seconds after the end of a session timer: whoever does not refresh it must send BYE before (RFC 4028 §10)."


class LostCalls:
    """Finds and ends them."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._next_at = 0.0

    def end(self, now: float) -> None:
        """End the calls of which neither end shows any life, if it is time to look."""
        self._end_unacknowledged(now)
        if now < self._next_at:
            return
        self._next_at = now + CHECK_EVERY
        self._node.session_timers.keep(now)
        silent_after = self._node.settings.session.silent_after
        lapsed_before = now - GRACE
        silent_before = now - silent_after if silent_after else float("-inf")
        for session in [session for session in self._node.calls.open if session.live]:
            if session.lapses_at:
                if session.lapses_at <= lapsed_before:
                    self._end(session, "session_timer", now)
            elif session.heard_at <= silent_before:
                self._end(session, "silence", now)

    def _end_unacknowledged(self, now: float) -> None:
        """Their callees have ended these calls by now (§13.3.1.4), and the BYE did not come this way."""
        waiting = self._node.calls.unacknowledged
        while waiting and waiting[session := next(iter(waiting))] <= now:
            del waiting[session]
            if session.live and not session.acknowledged:
                self._node.log("warning", "call ended that was never acknowledged", session.call_id)
                self._node.calls.end(session, now)

    def _end(self, session: Session, cause: str, now: float) -> None:
        node = self._node
        node.log("info", "call ended whose ends are silent", session.call_id, cause=cause)
        node.act(Count("calls_given_up", (cause,)))
        why = "nothing is heard of this call"
        node.own_requests.hang_up_outside(session, why, now)
        node.own_requests.hang_up_inside(session, why, now)
