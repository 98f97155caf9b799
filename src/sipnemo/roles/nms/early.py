"""A SIP-MN's call that rings while its path is dead (R3).

The far end's answer goes where the INVITE's Via says, to the path that is gone (RFC 3261 §18.2.2), and a second INVITE
would ring twice. But the 180 has made a dialog, which any path can reach. So the far end is asked by a re-INVITE from a
living path, again and again: while it rings it refuses that with 500 (§14.2); once it has answered, the 200 to the
re-INVITE stands for the 200 that was lost, and carries the new address at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.endpoint import via_line
from sipnemo.roles.nms.forward import Unheard
from sipnemo.roles.nms.reinvite import ALLOW
from sipnemo.roles.node import Send
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Response
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import Timer
from sipnemo.sip.transaction import ClientTransaction, InviteClient

if TYPE_CHECKING:
    from sipnemo.roles.nms.forward import Forward
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.paths import Path
    from sipnemo.roles.nms.session import Dialog, Session

ASK_EVERY = 1.0
"Seconds between questions: as long as that may an answer go unnoticed."
ANSWER_WITHIN = 2.0
"Seconds without any answer, after which the question is asked anew, perhaps over another path."
STILL_RINGING = frozenset((408, 491, 500, 503, 504))


class EarlyCall:
    """Asks each early dialog of one session whether it has been answered."""

    __slots__ = ("_asked", "_forward", "_gone", "_node", "_path", "_session", "_timer")

    def __init__(self, node: MobilityServer, forward: Forward) -> None:
        self._node = node
        self._forward = forward
        self._session: Session = forward.session
        self._path: Path | None = None
        self._asked: dict[ClientTransaction, Dialog] = {}
        self._gone: set[str] = set()
        "Tags of forks that have ended."
        self._timer: Timer | None = None

    def ask(self, now: float) -> None:
        """Put the question to every fork, over the best path."""
        self.stop()
        session = self._session
        if session.live or session.status is Status.TERMINATED or self._forward.server.finished:
            return
        self._timer = self._node.timers.set(now + ANSWER_WITHIN, self.ask)
        path = self._node.calls.way(session)
        if not path.on:
            return
        self._path = path
        for dialog in list(session.dialogs.values()):
            if dialog.remote_tag not in self._gone:
                self._node.calls.locate_dialog(dialog, partial(self._ask, dialog), now)

    def _ask(self, dialog: Dialog, targets: list[Target], now: float) -> None:
        path, session = self._path, self._session
        flow = next((flow for flow in map(path.flow_to, targets) if flow is not None), None) if path else None
        if path is None or flow is None:
            return
        number = session.e.map.get(self._forward.request.cseq, 0)
        # If the INVITE has been answered, its ACK opens the far end to the next request; otherwise it means nothing.
        self._node.act(Send(self._own("ACK", number, dialog, flow), flow))
        session.e.sent += 1
        body = session.media.again(path.media_host) if session.media is not None else ""
        branch = self._node.ids.branch()
        lines = [
            f"INVITE {dialog.target} SIP/2.0",
            via_line(flow, branch),
            "Max-Forwards: 70",
            *(f"Route: {route}" for route in dialog.routes),
            f"From: {session.local_value}",
            f"To: {session.to_value};tag={dialog.remote_tag}",
            f"Call-ID: {session.call_id}",
            f"CSeq: {session.e.sent} INVITE",
            f"Contact: <{path.contact(flow.local.transport, f';mn={session.token}')}>",
            f"Allow: {ALLOW}",
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body)}\r\n\r\n{body}")
        data = "\r\n".join(lines).encode("latin-1")
        self._asked[self._node.layer.request(self, branch, "INVITE", data, flow, now)] = dialog

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """Still ringing, answered, or over."""
        status = response.status
        dialog = self._asked.get(client)
        if 200 <= status < 300:
            self._answered(client, response, now)
        elif status >= 300 and dialog is not None:
            del self._asked[client]
            if status in STILL_RINGING:
                self._again(now)
            else:
                self._ended(dialog, status, now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """Asked anew by the timer."""
        self._asked.pop(client, None)

    def _answered(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The lost 200 is found: the SIP-MN gets this one in its place, and its ACK goes the ordinary way."""
        session, forward, path = self._session, self._forward, self._path
        dialog = session.dialogs.get(response.to_tag)
        if dialog is None:
            return
        self._node.act(Send(self._own("ACK", response.cseq, dialog, client.flow), client.flow))
        if session.live or session.status is Status.TERMINATED or path is None:
            return
        self._asked.pop(client, None)
        self.stop()
        if forward.client is not None:
            forward.client.abandon()
        forward.client = client
        self._node.calls.put_on(session, path)
        self._node.log("info", "a call was answered while its path was dead", session.call_id, path=path.name)
        self._node.answers.answered(forward, response, now)

    def _ended(self, dialog: Dialog, status: int, now: float) -> None:
        """This fork has gone; when it was the last, the call has failed, with an answer that was lost."""
        self._gone.add(dialog.remote_tag)
        if all(tag in self._gone for tag in self._session.dialogs):
            self.stop()
            if self._forward.client is not None:
                self._forward.client.abandon()
            self._node.answers.failed(self._forward, 480 if status == 481 else status, now)

    def cancel(self, now: float) -> None:
        """The caller gives up: the far end hears it over the living path, the SIP-MN at once from us."""
        self.stop()
        client, path = self._forward.client, self._node.calls.way(self._session)
        if isinstance(client, InviteClient) and path.on:
            target = Target(client.flow.local.transport, *client.flow.remote)
            flow = path.flow_to(target)
            if flow is not None:
                self._node.layer.request(Unheard(), client.branch, "CANCEL", client.cancel(), flow, now)
            client.abandon()
        self._node.answers.failed(self._forward, 487, now)

    def stop(self) -> None:
        """Ask no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for client in list(self._asked):
            if not client.finished:
                client.abandon()
        self._asked.clear()

    def _again(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._node.timers.set(now + ASK_EVERY, self.ask)

    def _own(self, method: str, cseq: int, dialog: Dialog, flow: Flow) -> bytes:
        ends = (self._session.local_value, f"{self._session.to_value};tag={dialog.remote_tag}")
        return self._node.own_requests.request(self._session, dialog, method, str(cseq), flow, ends)
