"""A call changes while it lasts: re-INVITE and UPDATE, ours and the far end's, and their glare (RFC 3261 §14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.phone.dialog import SDP, Dialog
from sipnemo.roles.phone.outgoing import Acknowledgement, Outgoing
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Request, Response, reply
from sipnemo.sip.timers import Timer
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.phone.call import Call


class Change:
    """One re-INVITE of ours, tried until it is taken, refused, or the call is over."""

    def __init__(self, call: Call, hold: bool | None) -> None:
        self._call = call
        self._hold = hold
        self._before = call.media.hold if call.media is not None else False
        self._outgoing: Outgoing | None = None
        self._ack: Acknowledgement | None = None
        self._timer: Timer | None = None

    @property
    def pending(self) -> bool:
        """Whether a re-INVITE of ours waits for its final response."""
        return self._outgoing is not None

    def start(self, now: float) -> None:
        """Send it, or wait until the far end's INVITE is over (§14.1)."""
        call = self._call
        dialog, media = call.dialog, call.media
        assert dialog is not None
        if call.unacknowledged is not None:
            self._timer = call.phone.timers.set(now + 0.1, self.start)
            return
        self._timer = None
        body = ""
        if media is not None:
            if self._hold is not None:
                media.hold = self._hold
            body = media.offer()
        request = dialog.request("INVITE", dialog.next_cseq(), body, SDP if body else "")
        request.set("allow", call.phone.allow)
        request.set("supported", call.phone.supported)
        call.timer.ask(request)
        self._outgoing = Outgoing(call.phone, call.user, request, dialog.next_cseq, self._answered)
        self._outgoing.send(now)

    def stop(self) -> None:
        """The call is over."""
        if self._timer is not None:
            self._timer.cancel()
        if self._outgoing is not None:
            self._outgoing.abandon()

    def _answered(self, response: Response, now: float) -> None:
        call, dialog = self._call, self._call.dialog
        assert dialog is not None
        if self._ack is not None:
            self._ack.repeat()  # the 2xx came again: our ACK was lost
            return
        if response.status < 300:
            self._taken(dialog, response, now)
            return
        self._outgoing = None
        if call.media is not None:
            call.media.withdraw()
        match response.status:
            case 491:
                self._timer = call.phone.timers.set(now + self._glare_pause(), self.start)
            case 500 if (pause := response.value("retry-after").partition(";")[0].strip()).isdecimal() and pause:
                self._timer = call.phone.timers.set(now + min(float(pause), 60.0), self.start)
            case 422 if call.timer.too_small(response):
                self.start(now)
            case 408 | 481:
                call.lose(f"{response.status} {response.reason}", now)  # §12.2.1.2
            case status:
                if call.media is not None:
                    call.media.hold = self._before
                call.change = None
                call.notify("refused", reason=f"{status} {response.reason}")

    def _taken(self, dialog: Dialog, response: Response, now: float) -> None:
        call = self._call
        assert self._outgoing is not None
        dialog.refresh(response)
        self._ack = Acknowledgement(call.phone, call.user, dialog, self._outgoing.request, "", now)
        self._outgoing = None
        call.change = None
        call.timer.agreed(response, now)
        if call.media is None:
            return
        try:
            call.media.accept(call.phone.description_in(response))
        except SipError:
            call.lose("the answer to our re-INVITE cannot be used", now)
            return
        call.apply_media()
        if self._hold is not None and self._hold != self._before:
            call.notify("held" if self._hold else "resumed")

    def _glare_pause(self) -> float:
        """Seconds until another try, in units of 10 ms: long for who made the Call-ID, short for the other (§14.1)."""
        chance = self._call.phone.ids.chance()
        span = 2.1 + 1.9 * chance if self._call.ours else 2.0 * chance
        return round(span, 2)


def answer_invite(call: Call, dialog: Dialog, server: ServerTransaction, request: Request, now: float) -> None:
    """The far end's re-INVITE."""
    phone = call.phone
    if call.setup is not None or call.media is None:
        raise SipError(500, headers=(f"Retry-After: {int(phone.ids.chance() * 10)}",))  # §14.2
    if call.change is not None and call.change.pending:
        raise SipError(491)
    if call.media.offered:
        raise SipError(491)
    offer = phone.description_in(request)
    headers = call.timer.answer(request, now)
    body = call.media.answer(offer) if offer else call.media.offer()
    dialog.refresh(request)
    data = reply(request, 200, headers=(*phone.dialog_headers(call.user, server), *headers, *SDP_TYPE), body=body)
    server.respond(200, data, now)
    call.repeat_until_acknowledged(server, data, now)
    if offer:
        call.apply_media()


def answer_update(call: Call, dialog: Dialog, server: ServerTransaction, request: Request, now: float) -> None:
    """The far end's UPDATE, before or after the answer (RFC 3311 §5.2)."""
    phone = call.phone
    offer = phone.description_in(request)
    body = ""
    if offer:
        if call.media is None or (call.setup is not None and call.setup.offer_unanswered):
            raise SipError(500, headers=(f"Retry-After: {int(phone.ids.chance() * 10)}",))
        if call.media.offered:
            raise SipError(491)
    headers = call.timer.answer(request, now)
    if offer and call.media is not None:
        body = call.media.answer(offer)
        if call.setup is not None:
            call.setup.updated(dialog.remote_tag, offer)
    dialog.refresh(request)
    typed = SDP_TYPE if body else ()
    data = reply(request, 200, headers=(*phone.dialog_headers(call.user, server), *headers, *typed), body=body)
    server.respond(200, data, now)
    if offer:
        call.apply_media()


SDP_TYPE = (f"Content-Type: {SDP}",)
