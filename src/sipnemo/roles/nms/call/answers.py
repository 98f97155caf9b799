"""Responses on their way back, and requests that get none (RFC 3261 §12.1, §16.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.nms.call import translate
from sipnemo.roles.nms.call.forward import Forward
from sipnemo.roles.nms.call.media import body_sdp
from sipnemo.roles.nms.call.session import ACK_WITHIN, Dialog, Session
from sipnemo.roles.nms.call.session_timers import agreed_expires
from sipnemo.roles.nms.move.merging import without_body
from sipnemo.roles.node import Count, Observe
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Response, uri_of
from sipnemo.sip.timers import TIMEOUT, TIMER_C

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer

from sipnemo.roles.nms.call.in_dialog import TARGET_REFRESH

CHALLENGED = (401, 407)
AFTER_TIMEOUT = 8.0
"Seconds that a callee has, after Timer H, to end by BYE a call whose ACK never came."
AFTER_481 = 32.0
"Seconds a session is kept whose far end says that it knows of no dialog; the SIP-MN's BYE should come (RFC 5057)."


class Answers:
    """Passes responses back, and draws the conclusions."""

    def __init__(self, node: MobilityServer) -> None:
        self.node = node

    def answered(self, forward: Forward, response: Response, now: float) -> None:
        """A response on its way back."""
        status = response.status
        if status == 100:
            return
        if forward.session.status is Status.TERMINATED:
            self._answered_too_late(forward, response, now)
            return
        if status in (491, 500) and self.node.merging.again(forward, response, now):
            return
        if status == 481 and forward.sent_again and forward.request.method == "PRACK" and not forward.offered:
            response.status, response.reason = 200, "OK"  # the one before has arrived, and its 200 was lost (RFC 3262)
            status = 200
        if status >= 200:
            forward.finish()
        elif forward.request.method == "INVITE":
            forward.wait(now + TIMER_C)
        if forward.initial and 200 <= status < 300 and not response.to_tag:
            self.failed(forward, 502, now)  # nothing could be said within such a dialog, not even BYE (§12.1)
            return
        try:
            body = self._answer_body(forward, response, now)
        except SipError as error:
            self._unusable(forward, response, error, now)
            return
        if forward.initial:
            self._progress(forward, response, now)
        elif 200 <= status < 300 and forward.request.method in TARGET_REFRESH:
            self._refreshed(forward, response)
        if 200 <= status < 300 and forward.request.method in ("INVITE", "UPDATE"):
            forward.session.expires = agreed_expires(response, forward.outward)
            forward.session.refreshed(now)
        self._pass_on(forward, response, body, now)
        if status >= 200:
            self._finished(forward, response, status, now)

    def _answered_too_late(self, forward: Forward, response: Response, now: float) -> None:
        """A response to a request of a call that is over; a 2xx that makes a call gets ACK and BYE (§9.1)."""
        if response.status < 200:
            return
        forward.finish()
        client = forward.client
        if forward.request.method != "INVITE" or response.status >= 300 or client is None:
            if not forward.server.finished:
                self._pass_on(forward, response, response.body, now)
            return
        if not forward.server.finished:
            self.node.respond(forward.server, 487, now)
        self.node.own_requests.refuse_answer(forward.session, response, client.flow, forward.late, now)
        forward.late = True

    def _pass_on(self, forward: Forward, response: Response, body: str, now: float) -> None:
        session, asked = forward.session, forward.request
        if forward.carries:
            response = without_body(response)  # its answer is for an offer of ours
        if forward.outward:
            routes = [self.node.inside_record_route(session.inside)] if forward.initial and response.to_tag else []
            data = translate.response(response, asked, body, "", routes)
        else:
            transport = forward.server.flow.local.transport
            contact = session.path.contact(transport, f";mn={session.token}")
            routes = translate.lines_of(asked, "record-route") if forward.initial and response.to_tag else []
            data = translate.response(response, asked, body, contact, routes)
        forward.server.respond(response.status, data, now)

    def _progress(self, forward: Forward, response: Response, now: float) -> None:
        """What a response to the first INVITE tells of the dialogs it makes (§12.1)."""
        session, status = forward.session, response.status
        if status >= 300 or not response.to_tag:
            return
        if forward.outward:
            dialog = session.dialogs.get(response.to_tag)
            if dialog is None:
                dialog = session.dialogs[response.to_tag] = self._dialog(session, response)
                if status < 200 and session.dialog is None:
                    session.dialog = dialog
            contact = response.contact
            if contact and contact != dialog.target:
                dialog.target = contact
                self.node.calls.prepare(dialog, now)
            if status < 200 and "rseq" in response.names:
                dialog.takes_update = response.has_token("allow", "update")
            if status >= 200 and not session.live:
                session.dialog = dialog
                session.remote_value = response.value("to")
        else:
            contact = response.contact
            if contact:
                session.mn_target = contact
            if session.phone_tag != response.to_tag and not session.live:
                self.node.calls.sessions.pop(session.key, None)
                session.phone_tag = response.to_tag
                self.node.calls.sessions[session.key] = session
            session.local_value = response.value("to")
        if status < 200:
            if session.status is Status.INVITING:
                session.status = Status.RINGING
        elif not session.live:
            session.status = Status.SUCCESS
            session.answered_at = now
            node = self.node
            node.calls.unacknowledged[session] = now + TIMEOUT + AFTER_TIMEOUT
            node.act(Count("calls_answered", ("out" if session.outgoing else "in",)))
            node.act(Observe("call_setup_seconds", now - session.created_at))
            if not session.path.on and forward.outward and session.path in node.doubtful():
                node.probers[session.path].vouched(now)
            early, left = session.early, session.path
            behind = not left.on
            if early is not None:
                session.early = None
                early.stop(now)
                behind, left = early.behind(session.dialog), early.left
            if behind:
                session.ack_awaited_until = now + ACK_WITHIN
                node.handover.session_stranded(session, now, left)

    def _dialog(self, session: Session, response: Response) -> Dialog:
        """What a response to the SIP-MN's first INVITE makes at the far end."""
        ours = (response.call_id, response.to_tag) in self.node.calls.sessions
        routes = [r for r in reversed(response.values("record-route")) if ours or not self.node.is_us(uri_of(r))]
        dialog = Dialog(response.to_tag, "", routes)
        dialog.received_from_mn = session.first_cseq
        return dialog

    def _refreshed(self, forward: Forward, response: Response) -> None:
        contact = response.contact
        if not contact:
            return
        if not forward.outward:
            forward.session.mn_target = contact
        elif forward.dialog is not None and forward.dialog.target != contact:
            forward.dialog.target = contact
            if not forward.dialog.routes:
                forward.dialog.next_hop = None

    def _finished(self, forward: Forward, response: Response, status: int, now: float) -> None:
        """A final response has passed: what ends with it."""
        session, method = forward.session, forward.request.method
        at_hand = session.pending is forward
        if at_hand:
            session.pending = None
            if session.move is not None and not forward.initial:  # after a 183, nobody reads what the first 2xx says
                self.node.merging.answered(forward, status, now)
            if forward.carries:
                self.node.in_dialog.release_held(session, now)
        if forward.offered and session.media is not None and (status >= 300 or method == "UPDATE"):
            session.media.rejected()  # also where a 2xx fails to answer
        if forward.initial:
            if status >= 300:
                self.node.act(Count("calls_refused", (str(status),)))
                if not session.live:
                    self.node.calls.end(session, now)
        elif method == "BYE":
            if status not in CHALLENGED and not self._fork_ended(session, forward.dialog, now):
                self.node.calls.end(session, now)
                forward.request.strip()
            else:
                session.ending = False
                self.node.handover.session_free(session, now)
        elif method == "PRACK":
            self._pracked(forward, status, now)
        elif status == 481 and session.live and method in ("INVITE", "UPDATE"):  # else of one usage (RFC 5057 §5.1)
            self.node.timers.set(now + AFTER_481, lambda at: self.node.calls.end(session, at))
        if session.live and (at_hand or method == "INVITE"):
            if status < 300 and method == "INVITE" and at_hand:
                if not forward.outward:
                    session.owed = session.i.map.get(forward.request.cseq, 0)
                    session.ack_awaited_until = now + ACK_WITHIN
                elif not forward.offered:
                    session.ack_awaited_until = now + ACK_WITHIN  # the answer comes in the ACK
            self.node.handover.session_free(session, now)

    def _pracked(self, forward: Forward, status: int, now: float) -> None:
        """Both ends know that a reliable response has arrived: what it carried is agreed (RFC 3262 §5)."""
        session, dialog = forward.session, forward.dialog
        if status >= 300 or dialog is None or session.live:
            return
        invite = session.pending.request if session.pending is not None else None
        takes = dialog.takes_update if forward.outward else invite is not None and invite.has_token("allow", "update")
        dialog.updatable = takes
        if session.early is not None:
            session.early.tell(now)

    def failed(self, forward: Forward, status: int, now: float) -> None:
        """The other side has not answered: say so, in its place."""
        forward.finish()
        session, server = forward.session, forward.server
        if forward.cancelled and forward.request.method == "INVITE":
            status = 487
        status, lines = self.node.suspension.unanswered(forward, status, now)
        if not server.finished:
            self.node.respond(server, status, now, headers=lines)
        if session.pending is forward:
            session.pending = None
            if forward.carries:
                self.node.in_dialog.release_held(session, now)
        if session.media is not None and forward.offered:
            session.media.rejected()
        if (forward.initial and not session.live) or (forward.request.method == "BYE" and session.live):
            self.node.calls.end(session, now)
        elif session.live and forward.request.method in ("INVITE", "UPDATE"):
            self.node.handover.session_free(session, now)

    def overdue(self, forward: Forward, now: float) -> None:
        """Timer C, or no final response to a CANCEL."""
        if forward.cancelled or forward.client is None:
            if forward.client is not None:
                forward.client.abandon()
            self.failed(forward, 408, now)
        else:
            forward.cancel(now)
            forward.wait(now + TIMEOUT)

    def _unusable(self, forward: Forward, response: Response, error: SipError, now: float) -> None:
        """A description in a response that cannot be served: the call cannot be (only its 2xx matters)."""
        self.node.log("warning", "description in a response refused", forward.request.call_id, why=str(error))
        if response.status >= 200:
            self.failed(forward, 488 if error.status == 488 else error.status, now)

    def _answer_body(self, forward: Forward, response: Response, now: float) -> str:
        if not response.body or response.status >= 300:
            return response.body
        if forward.carries:
            self.node.merging.took_answer(forward, response)
            return ""
        if forward.outward:
            if forward.initial and forward.session.live:
                other = self._of_another_fork(forward.session, response)
                if other is not None:
                    return other
            flow = forward.client.flow if forward.client is not None else forward.server.flow
            return self.node.calls.body_in(forward.session, response, forward.offered, flow, now)[0]
        return self.node.calls.body_out(forward.session, response, forward.offered, now)[0]

    def _of_another_fork(self, session: Session, response: Response) -> str | None:
        """The body of a 2xx that comes after another fork's: media stay with the first, until the SIP-MN ends that."""
        span, media = body_sdp(response), session.media
        if span is None or media is None or session.dialog is None or response.to_tag == session.dialog.remote_tag:
            return None
        text = response.body[span[0] : span[1]]
        shown = media.shown(text)  # raises where it is none: it must not be kept as this fork's answer then
        dialog = session.dialogs.get(response.to_tag)
        if dialog is None:
            dialog = session.dialogs[response.to_tag] = self._dialog(session, response)
        dialog.answer = text
        return response.body[: span[0]] + shown + response.body[span[1] :]

    def _fork_ended(self, session: Session, ended: Dialog | None, now: float) -> bool:
        """One of several dialogs is over; whether the call goes on in another (RFC 3261 §13.2.2.4)."""
        if ended is not None:
            ended.over = True
        if ended is not session.dialog:
            return True
        forks = session.dialogs.values()
        other = next((fork for fork in forks if fork.answer and fork.confirmed and not fork.over), None)
        if other is None or session.media is None:
            return False
        session.dialog, session.remote_value = other, f"{session.to_value};tag={other.remote_tag}"
        session.media.from_cn(other.answer, True, self.node.ports, now)
        other.answer = ""
        self.node.calls.apply_media(session)
        return True
