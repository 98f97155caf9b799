"""Requests inside a call, of either side, and ACK and CANCEL (RFC 3261 §12.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.endpoint import forwards, via_line
from sipnemo.roles.nms.call import translate
from sipnemo.roles.nms.call.forward import Forward
from sipnemo.roles.nms.call.session import Dialog, Session
from sipnemo.roles.node import send
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import TIMEOUT, TIMER_C
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer

from sipnemo.roles.nms.call.targets import fits, sip_uri, sized

TARGET_REFRESH = frozenset(("INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER"))
"Requests whose Contact replaces the remote target (RFC 6141 §2, RFC 6665 §4.4.1)."


class InDialog:
    """What the two ends send each other within a session."""

    def __init__(self, node: MobilityServer) -> None:
        self.node = node

    def receive(self, server: ServerTransaction, request: Request, outward: bool, now: float) -> None:
        """A request inside a dialog: of the SIP-MN (outward) or of the SIP-CN."""
        node = self.node
        session, dialog = self.node.calls.dialog_of(request, outward)
        if session is None or dialog is None:
            raise SipError(481)
        session.heard_at = now
        left = forwards(request)
        method = request.method
        last = dialog.received_from_mn if outward else dialog.received_from_cn
        if request.cseq == last and method == "PRACK":  # again, and the transaction that answered it is forgotten
            node.respond(server, 200, now)
            return
        if request.cseq <= last and method != "BYE":  # the far end may judge that: a call must come to its end
            raise SipError(500, "CSeq out of order")  # RFC 3261 §12.2.2
        if outward:
            dialog.received_from_mn = request.cseq
        else:
            dialog.received_from_cn = request.cseq
        if outward and not session.path.on and node.suspension.takes(server, request, session, now):
            return
        offers = method == "INVITE" or (method == "UPDATE" and request.body != "")
        carrying = session.pending is not None and session.pending.carries
        if method == "INVITE" and session.pending is not None and not (carrying and outward):
            raise SipError(491)  # RFC 3261 §14.1
        if offers and session.media is not None and session.media.offering:
            raise SipError(491)  # RFC 3311 §5.2: an early dialog may change its session once an answer has passed
        if offers and (session.reinviting or carrying):
            if not outward:
                raise SipError(491)
            # Phones retry a 491 badly or not at all; the answer to our own re-INVITE is one round trip away.
            session.held.append((server, request))
            if session.move is not None:
                session.move.hurry(now)
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
        forward = Forward(self.node.answers, server, session, dialog, outward, session.path)
        answer = method == "PRACK" and session.media is not None and session.media.answers(outward)
        if outward:
            body, described = self.node.calls.body_out(session, request, answer, now)
        else:
            body, described = self.node.calls.body_in(session, request, answer, server.flow, now)
        forward.offered = described and not answer
        if outward and server.flow.reliable:
            session.inside = server.flow  # the SIP-MN may have opened a new connection
        if method in TARGET_REFRESH:
            contact = request.contact
            if contact and outward:
                session.mn_target = contact
            elif contact and contact != dialog.target:
                dialog.target = contact
                if not dialog.routes:
                    dialog.next_hop = None
        elif method == "BYE" and dialog is session.dialog:
            session.ending = True
        if outward and session.move is not None and method == "UPDATE" and not body:
            forward.carries = session.move.asleep and session.pending is None
        if method == "INVITE":
            session.pending = forward
            node.respond(server, 100, now)
            forward.wait(now + TIMER_C)
        elif method == "UPDATE" and session.pending is None and (forward.offered or forward.carries):
            session.pending = forward
        self.send_within(forward, goes.next(request.cseq), left, body, now)

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

    def send_within(self, forward: Forward, cseq: int, left: int, body: str, now: float) -> None:
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
                self.node.answers.failed(forward, 503, at)
                return
            dialog.next_hop = targets[0]
            if not fits(request, body):
                uri = sip_uri(uri_of(dialog.routes[0]) if dialog.routes else dialog.target)
                targets = sized(targets, uri, request, body)
            node.attempt(forward, request.method, targets, build, at)

        described = session.path
        "For which the body was written."
        sent = 0
        "Its last CSeq."

        def build(target: Target, branch: str) -> tuple[bytes, Flow] | None:
            nonlocal described, sent, body
            if sent and request.method == "INVITE":
                session.unheard = (*session.unheard[-3:], sent)
                if forward.cancelled:
                    return None  # not anew: it ends with 487, and the move offers what is in force
            path = self.node.calls.way(session)
            flow = path.flow_to(target)
            if flow is None:
                return None
            forward.path = path
            own = [via_line(flow, branch), f"Max-Forwards: {left}", *(f"Route: {route}" for route in dialog.routes)]
            contact = path.contact(target.transport, f";mn={session.token}")
            if forward.carries and session.media is not None:
                own.append("Content-Type: application/sdp")
                body = session.media.again(path.media_host)
            elif path is not described and session.status is not Status.TERMINATED:
                body = self.node.calls.body_out(session, request, False, now, path)[0]
            described = path
            if sent:  # the far end may know the old one, and have answered it
                forward.sent_again += 1
                if request.method == "INVITE":
                    node.merging.settle(session, dialog, flow, now)
                sent = session.e.again(request.cseq)
            else:
                sent = cseq
            return translate.request(request, dialog.target, own, sent, body, contact, replaced), flow

        self.node.calls.locate_dialog(dialog, located, now)

    def ack(self, request: Request, outward: bool, now: float) -> None:
        """The ACK of a 2xx: end to end, its CSeq as the INVITE's was on the other side (§13.2.2.4)."""
        node = self.node
        session, dialog = self.node.calls.dialog_of(request, outward)
        if session is None or dialog is None:
            return
        session.acknowledged = True
        if dialog.answer:
            dialog.confirmed = True
        node.calls.unacknowledged.pop(session, None)
        if session.ack_awaited_until:
            session.ack_awaited_until = 0.0
            node.timers.set(now, lambda at: node.handover.session_free(session, at))
        side = session.e if outward else session.i
        cseq = side.map.get(request.cseq)
        if cseq is None:
            return
        try:
            left = forwards(request)
            if outward:
                way = node.calls.way(session) if session.move is not None else None
                body, described = self.node.calls.body_out(session, request, True, now, way)
                session.acked = (cseq, now, body)
            else:
                body, described = self.node.calls.body_in(session, request, True, session.path.nowhere, now)
        except SipError as error:
            node.log("warning", "ACK dropped", request.call_id, why=str(error))
            return
        if session.move is not None:
            node.merging.acknowledged(session, outward, described, node.calls.way(session), now)
        if not outward:
            own = [via_line(session.inside, node.ids.branch()), f"Max-Forwards: {left}"]
            node.act(send((translate.request(request, session.mn_target, own, cseq, body), session.inside)))
            return

        def located(targets: list[Target], at: float) -> None:
            for target in targets:
                path = self.node.calls.way(session)
                flow = path.flow_to(target)
                if flow is not None:
                    own = [via_line(flow, node.ids.branch()), f"Max-Forwards: {left}"]
                    own += [f"Route: {route}" for route in dialog.routes]
                    contact = path.contact(target.transport, f";mn={session.token}")
                    node.act(send((translate.request(request, dialog.target, own, cseq, body, contact), flow)))
                    return

        self.node.calls.locate_dialog(dialog, located, now)

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
            self.node.answers.failed(forward, 487, now)
            return
        forward.cancel(now)
        forward.wait(now + TIMEOUT)

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
