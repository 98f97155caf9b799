"""The INVITE that begins a call, from either side (RO §2.3, MH-10, MH-11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.nemo.policy import SessionView, priority
from sipnemo.roles.endpoint import forwards, via_line
from sipnemo.roles.nms.call import translate
from sipnemo.roles.nms.call.forward import Forward
from sipnemo.roles.nms.call.session import Dialog, Session
from sipnemo.roles.nms.move.order import of_request
from sipnemo.roles.nms.path.reach import fitting, serves_media
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import TIMER_C
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path
    from sipnemo.roles.nms.phone.bindings import MobileNode
    from sipnemo.roles.nms.settings import PolicySettings

from sipnemo.roles.nms.call.targets import sip_uri, sized


class Inviting:
    """Begins sessions."""

    def __init__(self, node: MobilityServer) -> None:
        self.node = node

    def from_mn(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A SIP-MN calls (Fig. 2)."""
        node = self.node
        left = forwards(request)
        routes = node.routes_behind_us(request)
        next_uri = sip_uri(uri_of(routes[0]) if routes else request.uri)
        old = self.node.calls.sessions.get((request.call_id, request.from_tag))
        if old is not None and old.live:
            raise SipError(482, "Merged request")  # §8.2.2.2: nobody else may end a call by taking its names
        node.admit_session()
        # The configured order looks at no call: nothing need be read of this one for it.
        path = node.choose(None if node.policy is priority else _view(request, node.settings.policy), now)
        token = node.bindings.token_for(request, server.flow)
        session = Session(request.call_id, True, server.flow, path, token, now)
        session.phone_tag = request.from_tag
        session.local_value = request.value("from")
        session.mn_user = uri_of(session.local_value)
        session.mn_target = request.contact or session.mn_user
        session.to_value = request.value("to")
        session.first_cseq = request.cseq
        session.urgent = of_request(request, node.settings.policy)
        forward = Forward(self.node.answers, server, session, None, True, path)
        try:
            body, forward.offered = node.calls.body_out(session, request, False, now)
        except SipError:
            node.calls.keep_nothing(session, now)
            raise
        node.respond(server, 100, now)
        if old is not None:
            self.node.calls.end(old, now)  # the same call, tried again with credentials: its last answer has passed
        self.node.calls.enter(session)
        session.pending = session.first = forward
        cseq = session.e.next(request.cseq)
        numbers = iter((cseq,))
        own = [
            f"Max-Forwards: {left}",
            *(f"Route: {route}" for route in routes),
            *node.home.record_route_lines(request),
        ]

        def build(target: Target, branch: str) -> tuple[bytes, Flow] | None:
            if forward.cancelled or not self.node.calls.fits(session, target):
                return None
            flow = session.path.flow_to(target)
            assert flow is not None
            contact = session.path.contact(target.transport, f";mn={token}")
            text = body if session.path is path else self.node.calls.body_out(session, request, False, now)[0]
            number = next(numbers, 0) or session.e.again(request.cseq)  # after a CANCEL of the one before
            head = [via_line(flow, branch), *own]
            return translate.request(request, request.uri, head, number, text, contact), flow

        def located(targets: list[Target], at: float) -> None:
            if forward.cancelled or server.finished:
                return
            if not targets:
                self.node.answers.failed(forward, 503 if next_uri.is_sip else 416, at)
                return
            forward.wait(at + TIMER_C)
            node.attempt(forward, "INVITE", sized(targets, next_uri, request, body), build, at)

        node.locate(next_uri, located, now)

    def from_cn(self, server: ServerTransaction, request: Request, mn: MobileNode, path: Path, now: float) -> None:
        """A SIP-CN calls; the INVITE has come through the SIP-HS (MH-11)."""
        node = self.node
        left = forwards(request)
        node.admit_session()
        invitation = (request.call_id, request.from_tag, request.cseq, mn.token)
        if invitation in self.node.calls.invitations:
            raise SipError(482, "Merged request")  # the SIP-HS tried a second path: do not ring twice (§8.2.2.2)
        session = Session(request.call_id, False, mn.flow, path, mn.token, now)
        session.mn_target = mn.contact
        session.mn_user = mn.uri
        session.urgent = of_request(request, node.settings.policy)
        session.remote_value = request.value("from")
        ours = (request.call_id, request.from_tag) in node.calls.sessions  # of another SIP-MN: we are on the way
        routes = [route for route in request.values("record-route") if ours or not node.is_us(uri_of(route))]
        dialog = Dialog(request.from_tag, request.contact, routes)
        dialog.received_from_cn = request.cseq
        session.dialog = dialog
        session.dialogs[dialog.remote_tag] = dialog
        self.node.calls.prepare(dialog, now)
        forward = Forward(self.node.answers, server, session, None, False, path)
        try:
            body, forward.offered = node.calls.body_in(session, request, False, server.flow, now)
        except SipError:
            node.calls.keep_nothing(session, now)
            raise
        if node.paths.mixed and not serves_media(session, path):
            session.path = next((other for other in fitting(node, session) if serves_media(session, other)), path)
        session.invitation = invitation
        self.node.calls.invitations[invitation] = session
        node.respond(server, 100, now)
        self.node.calls.enter(session)
        session.pending = session.first = forward
        cseq = session.i.next(request.cseq)
        branch = node.ids.branch()
        own = [via_line(mn.flow, branch), f"Max-Forwards: {left}", node.inside_record_route(mn.flow)]
        data = translate.request(request, mn.contact, own, cseq, body)
        forward.wait(now + TIMER_C)
        forward.client = node.layer.request(forward, branch, "INVITE", data, mn.flow, now)


def _view(request: Request, policy: PolicySettings) -> SessionView:
    """What a policy may know of a call that begins."""
    ends = uri_of(request.value("from")), uri_of(request.value("to"))
    return SessionView(request.call_id, *ends, urgent=of_request(request, policy) > 0)
