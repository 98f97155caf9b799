"""We are called: ringing, reliably where asked for, answer, refusal, Replaces (RFC 3261 §13.3, RFC 3262, RFC 3891)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.phone.changes import SDP_TYPE
from sipnemo.roles.phone.dialog import Dialog
from sipnemo.roles.phone.settings import BUSY, MANUAL
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Request, reply
from sipnemo.sip.timers import T1, TIMEOUT, Timer
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.phone.call import Call


class Invited:
    """The set-up of a call to us, from the INVITE to our final response."""

    def __init__(self, call: Call, server: ServerTransaction, dialog: Dialog, replaced: Call | None) -> None:
        self._call = call
        self._phone = call.phone
        self._server = server
        self._request = server.request
        self._dialog = dialog
        self._replaced = replaced
        self._offer = ""
        self._answer = ""
        self._session_headers: tuple[str, ...] = ()
        self._rseq = 0
        self._reliable: tuple[bytes, float, float] | None = None
        "The reliable 180 that waits for its PRACK: octets, present interval, when to give up."
        self._described = False
        "Our description has gone out with a reliable 180, so that the 2xx carries none."
        self._timer: Timer | None = None
        self._repeat_timer: Timer | None = None
        self._answer_waits = False
        self.dialogs = {dialog.remote_tag: dialog}
        "The early dialog by remote tag."

    @property
    def offer_unanswered(self) -> bool:
        """Whether the INVITE's offer still waits for our answer."""
        return bool(self._offer) and not self._described

    def start(self, now: float) -> None:
        """Check what is asked; SipError is the answer to the INVITE."""
        self._offer = self._phone.description_in(self._request)
        self._session_headers = self._call.timer.answer(self._request, now)
        self._call.timer.stop()  # runs from the 2xx on
        if self._phone.settings.answer_after == BUSY and self._replaced is None:
            raise SipError(486)
        self._call.notify("incoming", to=self._request.uri)
        self._call.open_media(self._opened, now)

    def _opened(self, now: float) -> None:
        media = self._call.media
        if self._server.finished:
            return
        try:
            if media is None:
                raise SipError(503, "No RTP Port")
            if self._offer:
                self._answer = media.answer(self._offer)
        except SipError as error:
            self._refuse(error.status, error.reason, "failure", now, error.headers)
            return
        wait = self._phone.settings.answer_after
        if wait == 0 or self._replaced is not None:
            if self._request.has_token("require", "100rel"):
                self._answer_waits = True
                self._ring(now)
            else:
                self.answer(now)
            return
        self._ring(now)
        if wait != MANUAL:
            self._timer = self._phone.timers.set(now + wait, self.answer)

    # ------------------------------------------------------------------------------------------------- ringing

    def _ring(self, now: float) -> None:
        phone, request = self._phone, self._request
        headers = phone.dialog_headers(self._call.user, self._server)
        wanted = request.has_token("supported", "100rel") and phone.settings.reliable
        if not (wanted or request.has_token("require", "100rel")):
            self._server.respond(180, reply(request, 180, to_tag=self._call.local_tag, headers=headers), now)
            return
        # A reliable response completes the offer/answer, so that an UPDATE may follow while it rings (RFC 3311 §5.1);
        # without an offer it has to make one (RFC 3262 §5).
        assert self._call.media is not None
        body = self._answer or self._call.media.offer()
        self._described = True
        self._rseq = 1 + int(phone.ids.chance() * 1_000_000)
        headers = (*headers, "Require: 100rel", f"RSeq: {self._rseq}", *SDP_TYPE)
        data = reply(request, 180, to_tag=self._call.local_tag, headers=headers, body=body)
        self._reliable = (data, T1, now + TIMEOUT)
        self._server.respond(180, data, now)
        self._repeat_timer = phone.timers.set(now + T1, self._repeat)
        if self._answer:
            self._call.apply_media()

    def _repeat(self, now: float) -> None:
        if self._reliable is None:
            return
        data, interval, until = self._reliable
        if now >= until:
            self._refuse(504, "No PRACK", "failure", now)
            return
        self._server.respond(180, data, now)
        self._reliable = (data, interval * 2, until)
        self._repeat_timer = self._phone.timers.set(min(now + interval * 2, until), self._repeat)

    def updated(self, tag: str, description: str) -> None:
        """The caller has changed its description; the 2xx carries none then."""

    def receive_prack(self, server: ServerTransaction, request: Request, now: float) -> None:
        """The caller has our reliable 180."""
        if self._reliable is None or request.value("rack").split() != [
            str(self._rseq),
            str(self._request.cseq),
            "INVITE",
        ]:
            raise SipError(481)
        self._reliable = None
        media = self._call.media
        offer = self._phone.description_in(request)
        body = ""
        if media is not None and offer:
            if media.offered:
                media.accept(offer)
            else:
                body = media.answer(offer)
            self._call.apply_media()
        self._phone.respond(server, 200, now, headers=SDP_TYPE if body else (), body=body)
        if self._answer_waits:
            self.answer(now)

    # -------------------------------------------------------------------------------------------------- answers

    def answer(self, now: float) -> None:
        """Take the call."""
        call, request, media = self._call, self._request, self._call.media
        if self._server.finished or media is None:
            return
        if self._reliable is not None:
            self._answer_waits = True  # no 2xx before the PRACK of a description (RFC 3262 §3)
            return
        self._stop()
        session = call.timer.answer(request, now)
        body = "" if self._described else self._answer or media.offer()
        headers = (*self._phone.dialog_headers(call.user, self._server), *session, *(SDP_TYPE if body else ()))
        data = reply(request, 200, to_tag=call.local_tag, headers=headers, body=body)
        self._server.respond(200, data, now)
        call.repeat_until_acknowledged(self._server, data, now)
        call.apply_media()
        call.established(self._dialog, now)
        if self._replaced is not None:
            self._replaced.hang_up(now)

    def give_up(self, status: int, now: float) -> None:
        """We refuse the call."""
        self._refuse(status, "", "us", now)

    def cancelled(self, now: float) -> None:
        """The caller has sent CANCEL."""
        if not self._server.finished:
            self._phone.respond(self._server, 487, now, to_tag=self._call.local_tag)
            self._stop()
            self._call.end("cancelled", "them", now)

    def ended_by_bye(self, now: float) -> None:
        """BYE of the caller in the early dialog (RFC 3261 §15.1.2)."""
        if not self._server.finished:
            self._phone.respond(self._server, 487, now, to_tag=self._call.local_tag)
            self._stop()

    def _refuse(self, status: int, reason: str, by: str, now: float, headers: tuple[str, ...] = ()) -> None:
        self._stop()
        if not self._server.finished:
            self._phone.respond(self._server, status, now, reason=reason, to_tag=self._call.local_tag, headers=headers)
        self._call.end(f"{status} {reason}".strip(), by, now, failed=by == "failure")

    def _stop(self) -> None:
        self._reliable = None
        for timer in (self._timer, self._repeat_timer):
            if timer is not None:
                timer.cancel()
