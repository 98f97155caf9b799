"""Requests within a call that are the gateway's own: the ACK of a re-INVITE given up, and the BYE of a lost call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.endpoint import via_line
from sipnemo.roles.nms.call.forward import Unheard
from sipnemo.roles.nms.call.session import Dialog, Session
from sipnemo.roles.node import Send
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Response, uri_of
from sipnemo.sip.timers import TIMEOUT

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer


class OwnRequests:
    """Speaks for the SIP-MN where it must not be asked."""

    def __init__(self, node: MobilityServer) -> None:
        self.node = node

    def ack(
        self,
        session: Session,
        dialog: Dialog,
        cseq: int,
        flow: Flow,
        body: str = "",
        ends: tuple[str, str] | None = None,
    ) -> bytes:
        """The ACK of a 2xx, with the answer to an offer that was in it, if any."""
        plain = self.request(session, dialog, "ACK", str(cseq), flow, ends)
        if not body:
            return plain
        head = plain.decode("latin-1").removesuffix("Content-Length: 0\r\n\r\n")
        text = f"{head}Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        return text.encode("latin-1")

    def ack_inside(self, session: Session, body: str, now: float) -> None:
        """Acknowledge to the SIP-MN its last 2xx, whose ACK is lost: the SIP-CN has it, as a later answer shows."""
        dialog = session.dialog
        if dialog is None or not session.owed:
            return
        ends = session.remote_value, session.local_value
        inner = Dialog(dialog.remote_tag, session.mn_target, [])
        self.node.act(Send(self.ack(session, inner, session.owed, session.inside, body, ends), session.inside))

    def stray_answer(self, response: Response, flow: Flow, now: float) -> None:
        """ACK a 2xx whose INVITE of ours has been given up, so that its sender does not end the call."""
        session = self.node.calls.sessions.get((response.call_id, response.from_tag))
        dialog = session.dialogs.get(response.to_tag) if session is not None else None
        if session is None or dialog is None:
            session = self.node.calls.sessions.get((response.call_id, response.to_tag))
            if session is None or session.dialog is None:
                return
            dialog = session.dialog
        if response.cseq in session.e.map.values():
            return  # of a forwarded INVITE: its ACK is the SIP-MN's
        self.node.act(Send(self.request(session, dialog, "ACK", str(response.cseq), flow), flow))

    def request(
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

    def refuse_answer(self, session: Session, response: Response, flow: Flow, again: bool, now: float) -> None:
        """Nobody wants the call that this 2xx makes: ACK, and BYE unless it is a retransmission (§9.1, §13.2.2.4)."""
        dialog = Dialog(response.to_tag, response.contact, [])
        dialog.routes = [r for r in reversed(response.values("record-route")) if not self.node.is_us(uri_of(r))]
        ends = (response.value("from"), response.value("to"))
        self.node.act(Send(self.request(session, dialog, "ACK", str(response.cseq), flow, ends), flow))
        if not again:
            session.e.sent = max(session.e.sent, response.cseq) + 1
            branch = self.node.ids.branch()
            bye = self.request(session, dialog, "BYE", str(session.e.sent), flow, ends, branch)
            self.node.layer.request(Unheard(), branch, "BYE", bye, flow, now)

    def hang_up_outside(self, session: Session, why: str, now: float) -> None:
        """Tell the SIP-CN that the call is over, now or as soon as there is a path (R18)."""
        self.node.goodbyes.owe(session, reason_of(why), now)

    def hang_up_inside(self, session: Session, why: str, now: float) -> None:
        """The SIP-CN knows of no call any more, or cannot be reached: tell the SIP-MN, and end it."""
        if not session.live:
            self._give_up_ringing(session, now)
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
            f"Reason: {reason_of(why)}",
            "Content-Length: 0\r\n\r\n",
        ]
        data = "\r\n".join(lines).encode("latin-1")
        self.node.layer.request(Unheard(), branch, "BYE", data, session.inside, now)
        self.node.calls.end(session, now)

    def _give_up_ringing(self, session: Session, now: float) -> None:
        """No path for too long: a caller hears 503, and a SIP-MN stops ringing."""
        forward = session.pending
        if forward is None:
            self.node.calls.end(session, now)
        elif forward.outward:
            if forward.client is not None:
                forward.client.abandon()
            self.node.answers.failed(forward, 503, now)
        else:
            forward.cancel(now)  # its 487 goes nowhere, and ends the session
            forward.wait(now + TIMEOUT)


def reason_of(why: str) -> str:
    """A Reason value (RFC 3326) of a call that the gateway ends."""
    return f'SIP;cause=480;text="{why}"'
