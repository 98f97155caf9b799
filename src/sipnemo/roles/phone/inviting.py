"""We call: INVITE, forks, reliable ringing, redirection, cancelling (RFC 3261 §13.2, §9.1, §8.1.3.4; RFC 3262)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.phone.dialog import SDP, Dialog, q_value
from sipnemo.roles.phone.outgoing import Acknowledgement, Outgoing, cancel_for, opening_request
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Request, Response, uri_of
from sipnemo.sip.timers import TIMEOUT, Timer
from sipnemo.sip.transaction import ClientTransaction, ServerTransaction
from sipnemo.sip.uri import UriError
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.phone.call import Call

MOST_REDIRECTIONS: Final = 10
"Addresses tried for one call beyond the first: who redirects in circles does not keep us busy for ever."


class Inviting:
    """The set-up of a call of ours, from the first INVITE to the 2xx of one fork."""

    offer_unanswered = False
    "An UPDATE while our own offer is open is refused by `MediaSession.offered` already."

    def __init__(self, call: Call, uri: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._call = call
        self._phone = call.phone
        self._headers = headers
        self._uri = uri
        self._cseq = 0
        self._tried: set[str] = set()
        self._to_try: list[str] = []
        self._outgoing: Outgoing | None = None
        self._acks: dict[str, Acknowledgement] = {}
        self._rseqs: dict[str, int] = {}
        self._answers: dict[str, str] = {}
        self._updated: set[str] = set()
        "Tags of those that have changed them by UPDATE."
        self._patience: Timer | None = None
        self._given_up = False
        self._heard = False
        "A provisional response has come, so that a CANCEL may be sent."
        self._last = ""
        self.dialogs: dict[str, Dialog] = {}
        "Early dialogs by remote tag."

    def start(self, now: float) -> None:
        """Open the media, then send the INVITE."""
        self._call.notify("calling")
        self._call.open_media(self._invite, now)

    def give_up(self, status: int, now: float) -> None:
        """Nobody wants the call any more: CANCEL, as soon as that is allowed."""
        if self._given_up:
            return
        self._given_up = True
        if self._outgoing is None:
            self._end("cancelled", "us", now)
        elif self._heard:
            self._cancel(now)

    def ended_by_bye(self, now: float) -> None:
        """BYE of the callee in an early dialog: the INVITE still has to end."""
        if not self._given_up:
            self._given_up = True
            self._cancel(now)

    def updated(self, tag: str, description: str) -> None:
        """The callee has changed its description before the 2xx, which does not speak of it any more."""
        self._answers[tag] = description
        self._updated.add(tag)

    def receive_prack(self, server: ServerTransaction, request: Request, now: float) -> None:
        """Only callees get a PRACK."""
        raise SipError(481)

    # ------------------------------------------------------------------------------------------------- sending

    def _invite(self, now: float) -> None:
        call, phone = self._call, self._phone
        if self._given_up:
            return
        if call.media is None:
            self._end("no RTP port is free: widen --rtp-ports", "us", now, failed=True)
            return
        self._tried.add(self._uri)
        try:
            request = opening_request(
                phone, call.user, "INVITE", self._uri, self._next_cseq(), call.local_tag, call.call_id
            )
        except UriError as error:
            self._end(f"bad URI {self._uri}: {error}", "us", now, failed=True)
            return
        request.set("allow", phone.allow)
        request.set("supported", phone.supported)
        for name, value in self._headers:
            request.set(name, value)
        call.timer.ask(request)
        if not phone.settings.late_offer:
            request.set("content-type", SDP)
            request.body = call.media.offer()
        self._heard = False
        self._outgoing = Outgoing(phone, call.user, request, self._next_cseq, self._final, self._provisional)
        self._stop_patience()
        self._patience = phone.timers.set(now + phone.settings.ring_at_most, lambda at: self.give_up(0, at))
        self._outgoing.send(now)

    def _next_cseq(self) -> int:
        self._cseq += 1
        return self._cseq

    def _cancel(self, now: float) -> None:
        client = self._outgoing.client if self._outgoing is not None else None
        if client is None:
            self._end("cancelled", "us", now)
            return
        self._phone.layer.request(_NoMatter(), client.branch, "CANCEL", cancel_for(client), client.flow, now)
        self._stop_patience()
        # A callee that never answers its INVITE after this is not waited for (§9.1).
        self._patience = self._phone.timers.set(now + TIMEOUT, self._silence)

    def _silence(self, now: float) -> None:
        if self._outgoing is not None:
            self._outgoing.abandon()
        self._end("cancelled", "us", now)

    # ----------------------------------------------------------------------------------------------- responses

    def _provisional(self, response: Response, now: float) -> None:
        first, self._heard = not self._heard, True
        if self._given_up:
            if first:
                self._cancel(now)
            return
        assert self._outgoing is not None
        tag = response.to_tag
        if response.status == 100 or not tag:
            if response.status > 100:
                self._rings(response, now)
            return
        dialog = self.dialogs.get(tag)
        if dialog is None:
            dialog = self.dialogs[tag] = Dialog.of_caller(self._outgoing.request, response)
        else:
            dialog.refresh(response)
        answer = ""
        if response.has_token("require", "100rel"):
            rseq = response.value("rseq")
            if not rseq.isdecimal() or len(rseq) > 10 or not self._in_sequence(tag, int(rseq)):
                return
            answer = self._listen(response, reliable=True)
            self._prack(dialog, response, int(rseq), answer, now)
        else:
            self._listen(response, reliable=False)
        self._rings(response, now)

    def _in_sequence(self, tag: str, rseq: int) -> bool:
        """Whether this reliable response is the next one; others are not acknowledged (RFC 3262 §4)."""
        before = self._rseqs.get(tag)
        if before is not None and rseq != before + 1:
            return False
        self._rseqs[tag] = rseq
        return True

    def _prack(self, dialog: Dialog, response: Response, rseq: int, answer: str, now: float) -> None:
        request = dialog.request("PRACK", dialog.next_cseq(), answer, SDP if answer else "")
        request.set("rack", f"{rseq} {response.cseq} INVITE")
        outgoing = Outgoing(self._phone, self._call.user, request, dialog.next_cseq, lambda _response, _at: None)
        outgoing.send(now)

    def _listen(self, response: Response, *, reliable: bool) -> str:
        """Early media: take in the description of a provisional response; an answer if it was an offer."""
        media = self._call.media
        if media is None:
            return ""
        try:
            body = self._phone.description_in(response)
            if not body:
                return ""
            if self._phone.settings.late_offer and response.to_tag not in self._answers:
                if not reliable:
                    return ""
                answer = media.answer(body)
                self._answers[response.to_tag] = body
                self._call.apply_media()
                return answer
            offered = media.offered
            media.accept(body)
            if not reliable:
                media.offered = offered  # only a preview of the answer to come (RFC 3261 §13.2.1)
            self._answers[response.to_tag] = body
            self._call.apply_media()
        except SipError:
            pass  # the 2xx decides
        return ""

    def _rings(self, response: Response, now: float) -> None:
        words = f"{response.status} {response.reason}"
        if response.status in (180, 183) and words != self._last:
            self._last = words
            self._call.notify("ringing", reason=words)
        if self._call.on_progress is not None:
            self._call.on_progress(response.status, response.reason, now)

    def _final(self, response: Response, now: float) -> None:
        status = response.status
        if status < 300:
            self._answered(response, now)
            return
        self._stop_patience()
        self._outgoing = None
        self.dialogs.clear()
        self._answers.clear()
        self._rseqs.clear()
        media = self._call.media
        if media is not None:
            media.withdraw()
        if self._given_up:
            self._end("cancelled", "us", now)
        elif self._another_way(status, response):
            self._invite(now)
        elif self._to_try and status < 600:
            self._next_target(now)
        else:
            self._end(f"{status} {response.reason}", "them" if response.names else "failure", now, failed=True)
            if self._call.on_progress is not None:
                self._call.on_progress(status, response.reason, now)

    def _another_way(self, status: int, response: Response) -> bool:
        """Whether this response says how to ask again."""
        if status == 422:
            return self._call.timer.too_small(response)
        return 300 <= status < 400 and self._follow(response)

    def _follow(self, response: Response) -> bool:
        """Queue the Contacts of a 3xx, best first; whether there is anywhere left to go (§8.1.3.4)."""
        contacts = sorted(response.values("contact"), key=q_value, reverse=True)
        fresh = []
        for contact in contacts:
            uri = uri_of(contact)
            try:
                is_sip = parse_uri(uri).is_sip
            except UriError:
                continue
            if is_sip and uri not in self._tried and uri not in self._to_try:
                fresh.append(uri)
        self._to_try = fresh + self._to_try
        if len(self._tried) > MOST_REDIRECTIONS:
            self._to_try.clear()
        if not self._to_try:
            return False
        self._uri = self._to_try.pop(0)
        self._call.notify("redirected", reason=f"{response.status} {response.reason}", to=self._uri)
        return True

    def _next_target(self, now: float) -> None:
        self._uri = self._to_try.pop(0)
        self._invite(now)

    def _answered(self, response: Response, now: float) -> None:
        call, phone = self._call, self._phone
        assert self._outgoing is not None
        tag = response.to_tag
        if (known := self._acks.get(tag)) is not None:
            known.repeat()
            return
        invite = self._outgoing.request
        early = self.dialogs.get(tag)
        dialog = Dialog.of_caller(invite, response)
        if early is not None:
            dialog.cseq, dialog.remote_cseq = max(early.cseq, dialog.cseq), early.remote_cseq
            dialog.target = dialog.target or early.target
        first = not self._acks
        body, problem = self._agree(response, first)
        self._acks[tag] = Acknowledgement(phone, call.user, dialog, invite, body, now)
        self._stop_patience()
        if not first or self._given_up or problem:
            # Another fork's answer, one that crossed our CANCEL, or one without usable media (§13.2.2.4).
            phone.say_goodbye(call.user, dialog, now)
            if first:
                self._end(problem or "cancelled", "us", now, failed=bool(problem))
            return
        call.timer.agreed(response, now)
        call.apply_media()
        call.established(dialog, now)

    def _agree(self, response: Response, first: bool) -> tuple[str, str]:
        """What the ACK has to carry, and what is wrong with the description (empty: nothing)."""
        media = self._call.media
        if media is None or not first:
            return "", ""
        try:
            body = self._phone.description_in(response)
        except SipError:
            body = ""
        early = self._answers.get(response.to_tag, "")
        if response.to_tag in self._updated:
            body = early
        if self._phone.settings.late_offer and not early:
            try:
                return media.answer(body), ""
            except SipError:
                return media.reject(body), "the callee's offer cannot be used"
        try:
            if body or early:
                media.accept(body or early)
                return "", ""
        except SipError:
            pass
        return "", "the answer has no usable media"

    def _end(self, reason: str, by: str, now: float, *, failed: bool = False) -> None:
        self._stop_patience()
        self._call.end(reason, by, now, failed=failed)

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class _NoMatter:
    """Waits for the end of a CANCEL; the INVITE's own end says everything."""

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """Nothing follows."""

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """Nothing follows."""
