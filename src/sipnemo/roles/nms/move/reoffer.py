"""One re-INVITE of ours, from the new path: sent, waited for, or taken back for an offer of the SIP-MN's (R5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sipnemo.roles.nms.call.signed import SignedRequest
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Response
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.move.lane import Lane
    from sipnemo.roles.nms.move.reinvite import Move
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, INFO, REFER, NOTIFY, SUBSCRIBE, MESSAGE"
ANSWER_WITHIN = 4.0
"Seconds without any answer after which a re-INVITE is sent anew (Timer B would take 32)."
PATIENCE = 16.0
"Seconds for which a SIP-CN may say that it is working on it."


class Reoffer:
    """The SIP-MN's last description, offered to the SIP-CN from another path."""

    __slots__ = ("_move", "_node", "_patient", "_request", "_timer")

    def __init__(self, node: MobilityServer, move: Move, session: Session, path: Path, flow: Flow, lane: Lane) -> None:
        self._node = node
        self._move = move
        self._patient = False
        "It has had a provisional response."
        self._timer: Timer | None = None
        dialog, media = session.dialog, session.media
        assert dialog is not None
        method = "INVITE" if media is not None and media.mn_sdp else "UPDATE"
        body = media.again(path.media_host) if method == "INVITE" and media is not None else ""
        lines = [f"Contact: <{path.contact(flow.local.transport, f';mn={session.token}')}>", f"Allow: {ALLOW}"]
        lines += node.session_timers.lines(session)  # a move is a refresh (R18)
        if body:
            lines.append("Content-Type: application/sdp")
        self._request = SignedRequest(node, self, session, dialog, method, tuple(lines), body, lane)

    @property
    def challenges(self) -> int:
        """How often it was sent again, signed."""
        return self._request.challenges

    def send(self, flow: Flow, now: float) -> None:
        """Send it."""
        self._request.send(flow, now)
        self._wait(ANSWER_WITHIN, self._silent, now)

    def on_answer(self, request: SignedRequest, response: Response, now: float) -> None:
        """The SIP-CN, or a proxy on the way, has answered."""
        if response.status >= 200:
            self._stop()
            self._move.on_answer(self, response, now)
            return
        # The path works, the SIP-CN takes its time; but an offer of the SIP-MN's shall not wait for that.
        self._wait(PATIENCE, self._impatient, now)
        self._patient = True
        if self._move.session.held:
            self.hurry(now)

    def on_silence(self, request: SignedRequest, status: int, now: float) -> None:
        """Nothing came, or nothing could be sent."""
        self._stop()
        self._move.on_silence(self, status, now)

    def hurry(self, now: float) -> None:
        """An offer of the SIP-MN waits for the answer to this one."""
        if self._patient:
            self._patient = False
            self._wait(ANSWER_WITHIN, self._impatient, now)

    def abandon(self) -> None:
        """Wait for no answer any more."""
        self._stop()
        self._request.abandon()

    def _impatient(self, now: float) -> None:
        """An answer is announced and does not come: take the offer back (RFC 6141 §3.4), and hear what comes."""
        self._patient = False
        self._request.cancel(now)
        self._wait(ANSWER_WITHIN, self._silent, now)

    def _silent(self, now: float) -> None:
        self._request.cancel(now)
        self.abandon()
        self._move.on_silence(self, 408, now)

    def _wait(self, span: float, then: Callable[[float], None], now: float) -> None:
        self._stop()
        self._timer = self._node.timers.set(now + span, then)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
