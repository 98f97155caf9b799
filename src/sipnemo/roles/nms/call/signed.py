"""A request of the gateway's own within a call, until its final answer; challenges on the way are answered (R4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sipnemo.roles.endpoint import via_line
from sipnemo.roles.nms.call.forward import Unheard
from sipnemo.roles.nms.call.trunk import MOST_CHALLENGES, Signature
from sipnemo.roles.nms.move.hops import OFFER
from sipnemo.roles.node import Send
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Response
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ClientTransaction, InviteClient, State

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Dialog, Session
    from sipnemo.roles.nms.move.lane import Lane
    from sipnemo.roles.nms.node import MobilityServer


class Asker(Protocol):
    """Who sends such a request and waits for what becomes of it."""

    def on_answer(self, request: SignedRequest, response: Response, now: float) -> None:
        """A response that is no challenge that could be met; 100 is left out, every 2xx has been acknowledged."""

    def on_silence(self, request: SignedRequest, status: int, now: float) -> None:
        """No final response: 408 nothing came in time, 503 the transport failed."""


class SignedRequest:
    """A re-INVITE, UPDATE or BYE to the SIP-CN, sent again with credentials when it is asked for them.

    A challenge takes no offer back: the same description is offered again, now signed.
    """

    __slots__ = (
        "_ack",
        "_asker",
        "_body",
        "_client",
        "_dialog",
        "_lane",
        "_lines",
        "_node",
        "_remote",
        "_signature",
        "challenges",
        "cseq",
        "method",
        "session",
    )

    def __init__(
        self,
        node: MobilityServer,
        asker: Asker,
        session: Session,
        dialog: Dialog,
        method: str,
        lines: tuple[str, ...],
        body: str,
        lane: Lane | None = None,
        remote: str = "",
    ) -> None:
        self._node = node
        self._asker = asker
        self.session = session
        self._dialog = dialog
        self.method = method
        self._lines = lines
        "Header lines behind those that every request has."
        self._body = body
        self._lane = lane
        "What it is paced by: a move is one of many; None: it leaves at once."
        self._remote = remote
        "To, where it is not the confirmed dialog's."
        self._client: ClientTransaction | None = None
        self._signature: Signature = []
        self.challenges = 0
        "How often it was sent again, signed."
        self._ack = b""
        self.cseq = 0
        "Of the last attempt."

    def send(self, flow: Flow, now: float) -> None:
        """Send it, signed if this next hop has asked for that before."""
        node, session = self._node, self.session
        session.e.sent += 1
        self.cseq = session.e.sent
        branch = node.ids.branch()
        self._signature = node.trunk.sign(hop_of(flow), self.method, self._dialog.target, self._body)
        data = self._text(self.method, flow, branch, self._lines, self._body)
        sender = node.layer if self._lane is None else self._lane
        self._client = sender.request(self, branch, self.method, data, flow, now)

    def _text(self, method: str, flow: Flow, branch: str, more: tuple[str, ...], body: str) -> bytes:
        session, dialog = self.session, self._dialog
        lines = [
            f"{method} {dialog.target} SIP/2.0",
            via_line(flow, branch) + (OFFER if self._lane is not None and method != "ACK" else ""),
            "Max-Forwards: 70",
            *(f"Route: {route}" for route in dialog.routes),
            f"From: {session.local_value}",
            f"To: {self._remote or session.remote_value}",
            f"Call-ID: {session.call_id}",
            f"CSeq: {self.cseq} {method}",
            *(f"{name}: {value}" for name, value in self._signature),
            *more,
            f"Content-Length: {len(body)}\r\n\r\n{body}",
        ]
        return "\r\n".join(lines).encode("latin-1")

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The SIP-CN, or a proxy on the way, has answered."""
        status = response.status
        if status == 100:
            return  # of the next hop only
        if self._ack and 200 <= status < 300:
            self._acknowledge(client.flow, now)  # our ACK was lost
            return
        if client is not self._client:
            return
        if status >= 200:
            self._client = None
            if status in (401, 407) and self._meets(response, client.flow):
                self.send(client.flow, now)
                return
            self._node.trunk.accepted(hop_of(client.flow), response, self._signature)
        if 200 <= status < 300 and self.method != "BYE":
            self._refresh_target(response)
            if self.method == "INVITE":  # the ACK carries its credentials (§22.1)
                self._ack = self._text("ACK", client.flow, self._node.ids.branch(), (), "")
                self._acknowledge(client.flow, now)
        self._asker.on_answer(self, response, now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """Nothing came, or nothing could be sent."""
        if client is self._client:
            self._client = None
            self._unheard()
            self._asker.on_silence(self, status, now)

    def abandon(self) -> None:
        """Wait for no answer any more; a 2xx that comes all the same is still acknowledged (`on_stray`)."""
        if self._client is not None:
            self._client.abandon()
            self._client = None
            self._unheard()

    def _acknowledge(self, flow: Flow, now: float) -> None:
        self._node.act(Send(self._ack, flow))
        if self._lane is not None:
            self._lane.spend(self._ack, flow, now)

    def _refresh_target(self, response: Response) -> None:
        """Take the remote target that a 2xx names; its ACK goes there already (§12.2.1.2)."""
        dialog, contact = self._dialog, response.contact
        if contact and contact != dialog.target:
            dialog.target = contact
            if not dialog.routes:
                dialog.next_hop = None

    def cancel(self, now: float) -> None:
        """Take back an INVITE that has had a provisional response; its final one still comes (§9.1)."""
        client = self._client
        if isinstance(client, InviteClient) and client.state is State.PROCEEDING:
            client.layer.request(Unheard(), client.branch, "CANCEL", client.cancel(), client.flow, now)

    def _unheard(self) -> None:
        """Its answer may have gone to a path that is dead."""
        if self.method == "INVITE":
            self.session.unheard = (*self.session.unheard[-3:], self.cseq)

    def _meets(self, response: Response, flow: Flow) -> bool:
        if self.challenges == MOST_CHALLENGES or not self._node.trunk.challenged(
            hop_of(flow), response, self._signature
        ):
            return False
        self.challenges += 1
        return True


def hop_of(flow: Flow) -> Target:
    """The next hop at the other end of a flow: whoever is behind it asks for credentials."""
    return Target(flow.local.transport, *flow.remote)
