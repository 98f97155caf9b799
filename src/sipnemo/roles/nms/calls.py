"""Invitation and everything within a call (RO §2.3, MH-10, MH-11): the dialog-transparent B2BUA.

`begin_…` handle the INVITE that makes a session, `within` every later request of either side, `answered` and
`failed` what comes back. Moves of our own are in `handover.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.endpoint import LARGEST_DATAGRAM, forwards, via_line
from sipnemo.roles.nms import translate
from sipnemo.roles.nms.forward import Forward, Unheard
from sipnemo.roles.nms.media import SessionMedia, body_sdp
from sipnemo.roles.nms.session import Dialog, Session
from sipnemo.roles.node import Count, Learned, Observe, Send
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Message, Request, Response, parameter, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import TIMEOUT, TIMER_C
from sipnemo.sip.transaction import ClientTransaction, ServerTransaction, State
from sipnemo.sip.uri import Uri, UriError
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.nms.bindings import MobileNode
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.paths import Path

TARGET_REFRESH = frozenset(("INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"))
"Requests whose Contact replaces the remote target (RFC 6141 §2, RFC 6665 §4.4.1)."
CHALLENGED = (401, 407)
OVER = (480, 481, 408, 410)
ACK_WITHIN = 2.0
"Seconds that a re-INVITE of ours waits for the ACK of a 2xx to the SIP-CN (RFC 3261 §14.1)."
AFTER_TIMEOUT = 8.0
"Seconds that a callee has, after Timer H, to end by BYE a call whose ACK never came."
AFTER_481 = 32.0
"Seconds a session is kept whose far end says that it knows of no dialog; the SIP-MN's BYE should come (RFC 5057)."


class Calls:
    """The Session List and the stories of its entries."""

    def __init__(self, node: MobilityServer) -> None:
        self.node = node
        self.sessions: dict[tuple[str, str], Session] = {}
        "By Call-ID and the SIP-MN's tag."
        self.open: dict[Session, None] = {}
        "All sessions, those without a tag of the SIP-MN yet included."
        self.invitations: dict[tuple[str, str, int, str], Session] = {}
        "Calls to SIP-MNs by Call-ID, caller's tag, CSeq and token: what makes two INVITEs the same one (§8.2.2.2)."

    # ------------------------------------------------------------------------------------- the INVITE that begins

    def begin_from_mn(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A SIP-MN calls (Fig. 2)."""
        node = self.node
        left = forwards(request)
        routes = node.routes_behind_us(request)
        next_uri = sip_uri(uri_of(routes[0]) if routes else request.uri)
        old = self.sessions.get((request.call_id, request.from_tag))
        if old is not None and old.live:
            raise SipError(482, "Merged request")  # §8.2.2.2: nobody else may end a call by taking its names
        node.admit_session()
        path = node.choose(None, now)
        token = node.bindings.token_for(request, server.flow)
        session = Session(request.call_id, True, server.flow, path, token, now)
        session.phone_tag = request.from_tag
        session.mn_user = uri_of(request.value("from"))
        session.mn_target = uri_of(request.value("contact")) or session.mn_user
        session.local_value = request.value("from")
        session.to_value = request.value("to")
        session.first_cseq = request.cseq
        forward = Forward(self, server, session, None, True, path)
        with self._nothing_kept(session, now):
            body, forward.offered = self._body_out(session, request, False, now)
        node.respond(server, 100, now)
        if old is not None:
            self.end(old, now)  # the same call, tried again with credentials: its last answer has passed
        self._enter(session)
        session.pending = forward
        cseq = session.e.next(request.cseq)
        own = [
            f"Max-Forwards: {left}",
            *(f"Route: {route}" for route in routes),
            *node.home.record_route_lines(request),
        ]

        def build(target: Target, branch: str) -> tuple[bytes, Flow] | None:
            flow = session.path.flow_to(target)
            if flow is None or forward.cancelled:
                return None
            contact = session.path.contact(target.transport, f";mn={token}")
            text = body if session.path is path else self._body_out(session, request, False, now)[0]
            return translate.request(request, request.uri, [via_line(flow, branch), *own], cseq, text, contact), flow

        def located(targets: list[Target], at: float) -> None:
            if forward.cancelled or server.finished:
                return
            if not targets:
                self.failed(forward, 503 if next_uri.is_sip else 416, at)
                return
            forward.wait(at + TIMER_C)
            node.attempt(forward, "INVITE", sized(targets, next_uri, request, body), build, at)

        node.locate(next_uri, located, now)

    def begin_from_cn(
        self, server: ServerTransaction, request: Request, mn: MobileNode, path: Path, now: float
    ) -> None:
        """A SIP-CN calls; the INVITE has come through the SIP-HS (MH-11)."""
        node = self.node
        left = forwards(request)
        node.admit_session()
        invitation = (request.call_id, request.from_tag, request.cseq, mn.token)
        if invitation in self.invitations:
            raise SipError(482, "Merged request")  # the SIP-HS tried a second path: do not ring twice (§8.2.2.2)
        session = Session(request.call_id, False, mn.flow, path, mn.token, now)
        session.invitation = invitation
        self.invitations[invitation] = session
        session.mn_target = mn.contact
        session.mn_user = mn.uri
        session.remote_value = request.value("from")
        ours = (request.call_id, request.from_tag) in self.sessions  # from another SIP-MN: we are on the way to it
        routes = [route for route in request.values("record-route") if ours or not node.is_us(uri_of(route))]
        dialog = Dialog(request.from_tag, uri_of(request.value("contact")), routes)
        dialog.received_from_cn = request.cseq
        session.dialog = dialog
        session.dialogs[dialog.remote_tag] = dialog
        self._locate_dialog(dialog, now)
        forward = Forward(self, server, session, None, False, path)
        with self._nothing_kept(session, now):
            body, forward.offered = self._body_in(session, request, False, server.flow, now)
        node.respond(server, 100, now)
        self._enter(session)
        session.pending = forward
        cseq = session.i.next(request.cseq)
        branch = node.ids.branch()
        own = [via_line(mn.flow, branch), f"Max-Forwards: {left}", node.inside_record_route(mn.flow)]
        data = translate.request(request, mn.contact, own, cseq, body)
        forward.wait(now + TIMER_C)
        forward.client = node.layer.request(forward, branch, "INVITE", data, mn.flow, now)

    # ----------------------------------------------------------------------------------------- within a session

    def within(self, server: ServerTransaction, request: Request, outward: bool, now: float) -> None:
        """A request inside a dialog: of the SIP-MN (outward) or of the SIP-CN."""
        node = self.node
        session, dialog = self._dialog_of(request, outward)
        if session is None or dialog is None:
            raise SipError(481)
        left = forwards(request)
        method = request.method
        last = dialog.received_from_mn if outward else dialog.received_from_cn
        if request.cseq <= last and method != "BYE":  # the far end may judge that: a call must come to its end
            raise SipError(500, "CSeq out of order")  # RFC 3261 §12.2.2
        if outward:
            dialog.received_from_mn = request.cseq
        else:
            dialog.received_from_cn = request.cseq
        offers = method == "INVITE" or (method == "UPDATE" and request.body != "")
        if method == "INVITE" and session.pending is not None:
            raise SipError(491)  # RFC 3261 §14.1
        if offers and session.media is not None and session.media.offering:
            raise SipError(491)  # RFC 3311 §5.2: an early dialog may change its session once an answer has passed
        if offers and session.reinviting:
            if not outward:
                raise SipError(491)
            # Phones retry a 491 badly or not at all; the answer to our own re-INVITE is one round trip away.
            session.held.append((server, request))
            if method == "INVITE":
                node.respond(server, 100, now)
            return
        self._pass_within(server, request, session, dialog, outward, left, now)

    def _pass_within(
        self,
        server: ServerTransaction,
        request: Request,
        session: Session,
        dialog: Dialog,
        outward: bool,
        left: int,
        now: float,
    ) -> None:
        node, method = self.node, request.method
        goes = session.e if outward else session.i
        forward = Forward(self, server, session, dialog, outward, session.path)
        answer = method == "PRACK" and session.media is not None and session.media.answers(outward)
        if outward:
            body, described = self._body_out(session, request, answer, now)
        else:
            body, described = self._body_in(session, request, answer, server.flow, now)
        forward.offered = described and not answer
        if outward and server.flow.reliable:
            session.inside = server.flow  # the SIP-MN may have opened a new connection
        if method in TARGET_REFRESH:
            contact = uri_of(request.value("contact"))
            if contact and outward:
                session.mn_target = contact
            elif contact and contact != dialog.target:
                dialog.target = contact
                if not dialog.routes:
                    dialog.next_hop = None
        elif method == "BYE" and dialog is session.dialog:
            session.ending = True
        if method == "INVITE":
            session.pending = forward
            node.respond(server, 100, now)
            forward.wait(now + TIMER_C)
        self._send_within(forward, goes.next(request.cseq), left, body, now)

    def release_held(self, session: Session, now: float) -> None:
        """Our re-INVITE has ended: the SIP-MN's own that waited for it goes on."""
        held, session.held = session.held, []
        for server, request in held:
            dialog = session.dialogs.get(request.to_tag)
            if not server.finished and dialog is not None:
                try:
                    self._pass_within(server, request, session, dialog, True, forwards(request), now)
                except SipError as error:
                    self.node.respond(server, error.status, now, reason=error.reason, headers=error.headers)

    def _send_within(self, forward: Forward, cseq: int, left: int, body: str, now: float) -> None:
        node, session, dialog, request = self.node, forward.session, forward.dialog, forward.request
        assert dialog is not None
        replaced = self._renumbered(session, request, forward.outward)
        if not forward.outward:
            branch = node.ids.branch()
            own = [via_line(session.inside, branch), f"Max-Forwards: {left}"]
            data = translate.request(request, session.mn_target, own, cseq, body, "", replaced)
            forward.client = node.layer.request(forward, branch, request.method, data, session.inside, now)
            return

        def located(targets: list[Target], at: float) -> None:
            if not targets:
                self.failed(forward, 503, at)
                return
            dialog.next_hop = targets[0]
            forward.path = session.path
            if len(targets) == 1 and targets[0].transport != "UDP":
                node.attempt(forward, request.method, targets, build, at)
                return
            uri = sip_uri(uri_of(dialog.routes[0]) if dialog.routes else dialog.target)
            node.attempt(forward, request.method, sized(targets, uri, request, body), build, at)

        first = session.path
        numbers = iter((cseq,))

        def build(target: Target, branch: str) -> tuple[bytes, Flow] | None:
            path = self.way(session)
            flow = path.flow_to(target)
            if flow is None:
                return None
            own = [via_line(flow, branch), f"Max-Forwards: {left}", *(f"Route: {route}" for route in dialog.routes)]
            contact = path.contact(target.transport, f";mn={session.token}")
            text = body if path is first else self._body_out(session, request, False, now, path)[0]
            number = next(numbers, 0) or session.e.again(request.cseq)  # sent anew, the far end may know the old one
            return translate.request(request, dialog.target, own, number, text, contact, replaced), flow

        self.locate_dialog(dialog, located, now)

    def ack(self, request: Request, outward: bool, now: float) -> None:
        """The ACK of a 2xx: end to end, its CSeq as the INVITE's was on the other side (§13.2.2.4)."""
        node = self.node
        session, dialog = self._dialog_of(request, outward)
        if session is None or dialog is None:
            return
        session.acknowledged = True
        if not outward and session.ack_awaited_until:
            session.ack_awaited_until = 0.0
            node.timers.set(now, lambda at: node.handover.session_free(session, at))
        side = session.e if outward else session.i
        cseq = side.map.get(request.cseq)
        if cseq is None:
            return
        try:
            left = forwards(request)
            if outward:
                body, _ = self._body_out(session, request, True, now)
            else:
                body, _ = self._body_in(session, request, True, session.path.nowhere, now)
        except SipError as error:
            node.log("warning", "ACK dropped", request.call_id, why=str(error))
            return
        if not outward:
            own = [via_line(session.inside, node.ids.branch()), f"Max-Forwards: {left}"]
            node.act(Send(translate.request(request, session.mn_target, own, cseq, body), session.inside))
            return

        def located(targets: list[Target], at: float) -> None:
            for target in targets:
                path = self.way(session)
                flow = path.flow_to(target)
                if flow is not None:
                    own = [via_line(flow, node.ids.branch()), f"Max-Forwards: {left}"]
                    own += [f"Route: {route}" for route in dialog.routes]
                    contact = path.contact(target.transport, f";mn={session.token}")
                    node.act(Send(translate.request(request, dialog.target, own, cseq, body, contact), flow))
                    return

        self.locate_dialog(dialog, located, now)

    def cancel(self, cancelled: ServerTransaction, now: float) -> None:
        """The caller has given up; its INVITE ends with 487, from the other side or, where that is silent, from us."""
        forward = cancelled.user
        if cancelled.finished:
            return
        if not isinstance(forward, Forward):
            self.node.respond(cancelled, 487, now)  # still held back
            return
        if forward.client is None:
            forward.cancelled = True  # where the INVITE is under way, its first answer is answered with CANCEL
            self.failed(forward, 487, now)
            return
        forward.cancel(now)
        forward.wait(now + TIMEOUT)

    # ------------------------------------------------------------------------------------------------- answers

    def answered(self, forward: Forward, response: Response, now: float) -> None:
        """A response on its way back."""
        status = response.status
        if status == 100:
            return
        if forward.session.status is Status.TERMINATED:
            self._answered_too_late(forward, response, now)
            return
        if status == 500 and self._overtaken(forward, now):
            return
        if status >= 200:
            forward.finish()
        elif forward.request.method == "INVITE":
            forward.wait(now + TIMER_C)
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
        self._pass_on(forward, response, body, now)
        if status >= 200:
            self._finished(forward, response, status, now)

    def _overtaken(self, forward: Forward, now: float) -> bool:
        """A request that a re-INVITE of ours has overtaken is out of order for the SIP-CN (§12.2.2): once more."""
        session, request = forward.session, forward.request
        if not forward.outward or forward.initial or forward.overtaken or forward.client is None:
            return False
        if session.e.map.get(request.cseq, session.e.sent) >= session.e.sent:
            return False
        forward.overtaken = True
        body = self._body_out(session, request, False, now)[0] if forward.offered else request.body
        self._send_within(forward, session.e.again(request.cseq), forwards(request), body, now)
        return True

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
        dialog = Dialog(response.to_tag, uri_of(response.value("contact")), [])
        dialog.routes = [r for r in reversed(response.values("record-route")) if not self.node.is_us(uri_of(r))]
        ends = (response.value("from"), response.value("to"))
        ack = self._own_request(forward.session, dialog, "ACK", str(response.cseq), client.flow, ends)
        self.node.act(Send(ack, client.flow))
        if forward.late:
            return  # a retransmission: the BYE is on its way
        forward.late = True
        branch = self.node.ids.branch()
        bye = self._own_request(forward.session, dialog, "BYE", str(response.cseq + 1), client.flow, ends, branch)
        self.node.layer.request(Unheard(), branch, "BYE", bye, client.flow, now)

    def _pass_on(self, forward: Forward, response: Response, body: str, now: float) -> None:
        session, asked = forward.session, forward.request
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
                ours = (response.call_id, response.to_tag) in self.sessions
                routes = [
                    r for r in reversed(response.values("record-route")) if ours or not self.node.is_us(uri_of(r))
                ]
                dialog = Dialog(response.to_tag, "", routes)
                dialog.received_from_mn = session.first_cseq
                session.dialogs[response.to_tag] = dialog
                if status < 200 and session.dialog is None:
                    session.dialog = dialog
            contact = uri_of(response.value("contact"))
            if contact and contact != dialog.target:
                dialog.target = contact
                self._locate_dialog(dialog, now)
            if status >= 200 and not session.live:
                session.dialog = dialog
                session.remote_value = response.value("to")
        else:
            contact = uri_of(response.value("contact"))
            if contact:
                session.mn_target = contact
            if session.phone_tag != response.to_tag and not session.live:
                self.sessions.pop(session.key, None)
                session.phone_tag = response.to_tag
                self.sessions[session.key] = session
            session.local_value = response.value("to")
        if status < 200:
            if session.status is Status.INVITING:
                session.status = Status.RINGING
        elif not session.live:
            session.status = Status.SUCCESS
            session.answered_at = now
            self.node.timers.set(now + TIMEOUT + AFTER_TIMEOUT, lambda at: self._never_acknowledged(session, at))
            node = self.node
            node.act(Count("calls_answered", ("out" if session.outgoing else "in",)))
            node.act(Observe("call_setup_seconds", now - session.created_at))
            if not session.path.on:
                node.handover.session_stranded(session, now)

    def _never_acknowledged(self, session: Session, now: float) -> None:
        """Its callee has ended the call by now (§13.3.1.4), and the BYE did not come this way."""
        if session.live and not session.acknowledged:
            self.node.log("warning", "call ended that was never acknowledged", session.call_id)
            self.end(session, now)

    def _refreshed(self, forward: Forward, response: Response) -> None:
        contact = uri_of(response.value("contact"))
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
        if session.pending is forward:
            session.pending = None
        if status >= 300 and forward.offered and session.media is not None:
            session.media.rejected()
        if forward.initial:
            if status >= 300:
                self.node.act(Count("calls_refused", (str(status),)))
                if not session.live:
                    self.end(session, now)
        elif method == "BYE":
            if status not in CHALLENGED and forward.dialog is session.dialog:
                self.end(session, now)
            else:
                session.ending = False
                self.node.handover.session_free(session, now)
        elif status == 481 and session.live and method in ("INVITE", "UPDATE"):  # else of one usage (RFC 5057 §5.1)
            self.node.timers.set(now + AFTER_481, lambda at: self.end(session, at))
        if session.live and method == "INVITE":
            if status < 300 and not forward.outward:
                session.ack_awaited_until = now + ACK_WITHIN
            self.node.handover.session_free(session, now)

    def failed(self, forward: Forward, status: int, now: float) -> None:
        """The other side has not answered: say so, in its place."""
        forward.finish()
        session, server = forward.session, forward.server
        if forward.cancelled and forward.request.method == "INVITE":
            status = 487
        if not server.finished:
            self.node.respond(server, status, now)
        if session.pending is forward:
            session.pending = None
        if session.media is not None and forward.offered:
            session.media.rejected()
        if (forward.initial and not session.live) or (forward.request.method == "BYE" and session.live):
            self.end(session, now)
        elif session.live and forward.request.method == "INVITE":
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

    # --------------------------------------------------------------------------------- what moves bring with them

    def ack_of_ours(self, session: Session, client: ClientTransaction, path: Path) -> bytes:
        """The ACK for a 2xx to a re-INVITE of our own (§13.2.2.4)."""
        dialog = session.dialog
        assert dialog is not None
        cseq = client.data.decode("latin-1").partition("\r\nCSeq: ")[2].partition(" ")[0]
        return self._own_request(session, dialog, "ACK", cseq, client.flow)

    def stray_answer(self, response: Response, flow: Flow, now: float) -> None:
        """ACK a 2xx whose INVITE of ours has been given up, so that its sender does not end the call."""
        session = self.sessions.get((response.call_id, response.from_tag))
        dialog = session.dialogs.get(response.to_tag) if session is not None else None
        if session is None or dialog is None:
            session = self.sessions.get((response.call_id, response.to_tag))
            if session is None or session.dialog is None:
                return
            dialog = session.dialog
        if response.cseq in session.e.map.values():
            return  # of a forwarded INVITE: its ACK is the SIP-MN's
        self.node.act(Send(self._own_request(session, dialog, "ACK", str(response.cseq), flow), flow))

    def _own_request(
        self,
        session: Session,
        dialog: Dialog,
        method: str,
        cseq: str,
        flow: Flow,
        ends: tuple[str, str] | None = None,
        branch: str = "",
    ) -> bytes:
        local, remote = ends or (session.local_value, session.remote_value)
        lines = [
            f"{method} {dialog.target} SIP/2.0",
            via_line(flow, branch or self.node.ids.branch()),
            "Max-Forwards: 70",
            *(f"Route: {route}" for route in dialog.routes),
            f"From: {local}",
            f"To: {remote}",
            f"Call-ID: {session.call_id}",
            f"CSeq: {cseq} {method}",
            "Content-Length: 0\r\n\r\n",
        ]
        return "\r\n".join(lines).encode("latin-1")

    def hang_up_inside(self, session: Session, why: str, now: float) -> None:
        """The SIP-CN knows of no call any more, or cannot be reached: tell the SIP-MN, and end it."""
        if not session.live:
            self.end(session, now)  # its INVITE ends by its own timers
            return
        session.i.sent += 1
        branch = self.node.ids.branch()
        lines = [
            f"BYE {session.mn_target} SIP/2.0",
            via_line(session.inside, branch),
            "Max-Forwards: 70",
            f"From: {session.remote_value}",
            f"To: {session.local_value}",
            f"Call-ID: {session.call_id}",
            f"CSeq: {session.i.sent} BYE",
            f'Reason: SIP;cause=480;text="{why}"',
            "Content-Length: 0\r\n\r\n",
        ]
        data = "\r\n".join(lines).encode("latin-1")
        self.node.layer.request(Unheard(), branch, "BYE", data, session.inside, now)
        self.end(session, now)

    def replaces(self, request: Request) -> bool:
        """Whether an INVITE from outside names a live dialog of ours (RFC 3891): it may come from anywhere."""
        value = request.value("replaces")
        if not value:
            return False
        call_id, _, tags = value.partition(";")
        ours, theirs = (parameter(f"<>;{tags}", name) or "" for name in ("to-tag", "from-tag"))
        session = self.sessions.get((call_id.strip(), ours))
        return session is not None and session.live and theirs in session.dialogs

    def connection_closed(self, flow: Flow) -> None:
        """A SIP-MN's connection is gone: its calls reach it at its Contact's address, by a new one."""
        for session in self.open:
            if session.inside == flow:
                session.inside = self.node.at_contact(session.mn_target, flow)

    def learned(self, input: Learned) -> None:
        """Symmetric RTP has been learnt: keep it when flows are written anew."""
        for session in self.open:
            if session.media is not None and input.key in session.media.flows:
                session.media.learnt[input.key] = input.peer
                session.media.flows[input.key] = session.media.flows[input.key]._replace(peer=input.peer)
                return

    # ------------------------------------------------------------------------------------------ beginning and end

    def _enter(self, session: Session) -> None:
        self.open[session] = None
        if session.phone_tag:
            self.sessions[session.key] = session
        session.path.sessions[session] = None
        self.node.prober_hurry(session.path)

    def end(self, session: Session, now: float) -> None:
        """The session is over: its entry, ports and flows go (RO-6: TERMINATED entries are deleted)."""
        if session.status is Status.TERMINATED:
            return
        node = self.node
        if session.live and session.answered_at is not None:
            node.act(Observe("call_duration_seconds", now - session.answered_at))
        session.status = Status.TERMINATED
        for server, _ in session.held:
            if not server.finished:
                node.respond(server, 487, now)
        session.held = []
        self.open.pop(session, None)
        if session.invitation is not None:
            self.invitations.pop(session.invitation, None)
        session.path.sessions.pop(session, None)
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]
        if session.media is not None:
            for action in session.media.release(node.ports, now):
                node.act(action)
        node.handover.session_ended(session, now)

    # --------------------------------------------------------------------------------------------- descriptions

    @contextmanager
    def _nothing_kept(self, session: Session, now: float) -> Iterator[None]:
        """When the description of a first INVITE is refused, the ports it got already are given back."""
        try:
            yield
        except SipError:
            if session.media is not None:
                session.media.release(self.node.ports, now)
            raise

    def _body_out(
        self, session: Session, message: Message, answer: bool, now: float, path: Path | None = None
    ) -> tuple[str, bool]:
        """The body towards the SIP-CN, and whether it holds a description."""
        span = body_sdp(message)
        if span is None:
            return message.body, False
        media = session.media
        if media is None:
            media = session.media = SessionMedia(session.inside.local.host, session.path.address)
        host = (path or session.path).address
        text = media.from_mn(message.body[span[0] : span[1]], host, answer, self.node.ports, now)
        if answer:
            self.apply_media(session)
        return message.body[: span[0]] + text + message.body[span[1] :], True

    def _body_in(self, session: Session, message: Message, answer: bool, flow: Flow, now: float) -> tuple[str, bool]:
        """The body towards the SIP-MN, and whether it holds a description."""
        span = body_sdp(message)
        if span is None:
            return message.body, False
        media = session.media
        if media is None:
            media = session.media = SessionMedia(session.inside.local.host, session.path.address)
        if flow.remote[1] and self.node.settings.media.learn:
            media.cn_host = flow.remote[0]
        text = media.from_cn(message.body[span[0] : span[1]], answer, self.node.ports, now)
        if answer:
            self.apply_media(session)
        return message.body[: span[0]] + text + message.body[span[1] :], True

    def _answer_body(self, forward: Forward, response: Response, now: float) -> str:
        if not response.body or response.status >= 300:
            return response.body
        if forward.outward:
            flow = forward.client.flow if forward.client is not None else forward.server.flow
            return self._body_in(forward.session, response, forward.offered, flow, now)[0]
        return self._body_out(forward.session, response, forward.offered, now)[0]

    def way(self, session: Session) -> Path:
        """The path for a request of this session now: its own, or the best one while its move is still to come."""
        if session.path.on:
            return session.path
        ranked = self.node.ranked(session)
        return ranked[0] if ranked else session.path

    def path_died(self, forward: Forward, now: float) -> bool:
        """Whether a request that waits for an answer over a dead path may be sent over another (R2)."""
        session = forward.session
        if not forward.initial:
            return True
        if session.status is Status.TERMINATED:
            return False
        client = forward.client
        if client is not None and client.state is not State.CALLING:
            return False  # the far end has it and may be ringing: a second INVITE would ring twice
        return self.rehome(session)

    def rehome(self, session: Session) -> bool:
        """A session that nobody has been told an address for yet takes a path that is ON; whether it could."""
        best = self.way(session)
        if best is session.path:
            return False
        session.path.sessions.pop(session, None)
        session.path = best
        best.sessions[session] = None
        self.apply_media(session)
        return True

    def apply_media(self, session: Session) -> None:
        """Bring the media plane in step with the session."""
        media = session.media
        if media is not None and session.status is not Status.TERMINATED:
            for action in media.changes(media.plan(session.path, self.node.paths.all)):
                self.node.act(action)

    # -------------------------------------------------------------------------------------------------- helpers

    def _dialog_of(self, request: Request, outward: bool) -> tuple[Session | None, Dialog | None]:
        mn_tag, cn_tag = (request.from_tag, request.to_tag) if outward else (request.to_tag, request.from_tag)
        session = self.sessions.get((request.call_id, mn_tag))
        return session, session.dialogs.get(cn_tag) if session is not None else None

    def _renumbered(self, session: Session, request: Request, outward: bool) -> dict[str, str] | None:
        """RAck and a refer subscription's id name a CSeq, which is another one on the other side."""
        side = session.e if outward else session.i
        if request.method == "PRACK":
            words = request.value("rack").split()
            if len(words) == 3 and words[1].isdecimal():
                return {"rack": f"RAck: {words[0]} {side.map.get(int(words[1]), words[1])} {words[2]}"}
        elif request.method in ("NOTIFY", "SUBSCRIBE"):
            event = request.value("event")
            head, mark, number = event.partition(";id=")
            if mark and head.strip().lower() == "refer" and number.isdecimal():
                other = session.i if outward else session.e
                original = next((k for k, v in other.map.items() if v == int(number)), int(number))
                if request.method == "SUBSCRIBE":
                    original = side.map.get(int(number), int(number))
                return {"event": f"Event: refer;id={original}"}
        return None

    def _locate_dialog(self, dialog: Dialog, now: float) -> None:
        """Find the far end's next hop ahead of need, so that a re-INVITE need not wait for DNS."""
        dialog.next_hop = None
        self.locate_dialog(dialog, lambda targets, at: None, now)

    def locate_dialog(self, dialog: Dialog, then: Located, now: float) -> None:
        """Where in-dialog requests to this far end go."""
        if dialog.next_hop is not None:
            then([dialog.next_hop], now)
            return

        def located(targets: list[Target], at: float) -> None:
            if targets:
                dialog.next_hop = targets[0]
            then(targets, at)

        try:
            uri = sip_uri(uri_of(dialog.routes[0]) if dialog.routes else dialog.target)
        except SipError:
            then([], now)
            return
        self.node.locate(uri, located, now)


if TYPE_CHECKING:
    from collections.abc import Callable

    Located = Callable[[list[Target], float], None]


def agreed_expires(response: Response, outward: bool) -> str:
    """Session-Expires as our own re-INVITE would say it, after this 2xx (RFC 4028 §7.4); "" when there is none.

    `refresher` counts from who sends the request; towards the SIP-CN we stand for the SIP-MN.
    """
    value = response.value("session-expires")
    seconds, _, rest = value.partition(";")
    if not seconds.strip().isdecimal():
        return ""
    mn_refreshes = ("refresher=uac" in rest.replace(" ", "").lower()) == outward
    return f"{seconds.strip()};refresher={'uac' if mn_refreshes else 'uas'}"


def sip_uri(text: str) -> Uri:
    """A URI that a request can be sent to; 416 for other schemes, 400 for nonsense (§8.2.2.1)."""
    try:
        uri = parse_uri(text)
    except UriError as error:
        raise SipError(400, f"Bad URI: {error}") from None
    if not uri.is_sip:
        raise SipError(416)
    return uri


def sized(targets: list[Target], uri: Uri, request: Request, body: str) -> list[Target]:
    """A request too large for a datagram tries TCP first, unless the URI insists (§18.1.1)."""
    if targets[0].transport != "UDP" or uri.transport:
        return targets
    size = len(body) + 200 + sum(map(len, request.lines))
    if size <= LARGEST_DATAGRAM:
        return targets
    return [target._replace(transport="TCP") for target in targets] + targets
