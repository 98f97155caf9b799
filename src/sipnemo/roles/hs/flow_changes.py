"""A SIP-NMS has lost a path: what was under way on its flow goes on over another (R2, R3).

The SIP-NMS says so itself: by a REGISTER that takes the flow away, or by sending a request again, the same transaction,
from another of its paths. Either way nothing begins anew: branches stay, so whoever had the message already takes it
for a retransmission (RFC 3261 §17.2.3) and repeats what it had answered. Nobody rings twice, and what was lost with
the path, be it INVITE, 180, 487 or CANCEL, is there one round trip later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sipnemo.roles.endpoint import MOVED
from sipnemo.roles.hs.bindings import Binding, Record
from sipnemo.roles.hs.leg import Leg
from sipnemo.sip.flow import Flow, Local
from sipnemo.sip.message import Request
from sipnemo.sip.transaction import ClientTransaction, ServerTransaction, State

if TYPE_CHECKING:
    from sipnemo.roles.hs.node import HomeServer

NOWHERE: Final = Flow(Local("UDP", "", 0), ("", 0))


class FlowChanges:
    """Takes transactions from flow to flow."""

    def __init__(self, hs: HomeServer) -> None:
        self._hs: Final = hs
        self._waiting: Final[dict[str, list[ClientTransaction]]] = {}
        "What rings at SIP-NMSs that have no flow, by their URIs' user parts."

    def changed(self, record: Record, before: Mapping[str, Binding], now: float) -> None:
        """The bindings of a SIP-NMS have changed; `before` are those it had."""
        hs = self._hs
        left = hs.proxy.flows_of(record.user, hs.wall(now))
        gone = {binding.flow for binding in before.values() if binding.flow is not None}.difference(left)
        if not left or not (gone or record.user in self._waiting):
            return
        best = left[0]
        for client in list(hs.layer.clients.values()):
            if client.flow in gone:
                _follow(client, best, now)
        for client in self._waiting.pop(record.user, ()):
            _follow(client, best, now)
        for server in list(hs.layer.servers.values()):
            if server.flow in gone:
                server.flow = best
                if server.request.method == "INVITE":  # the SIP-NMS sends any other again itself
                    server.repeated(now)

    def broken(self, flow: Flow, now: float) -> None:
        """Nothing can be sent on a flow any more. What rings there goes on over another, or waits for one."""
        hs = self._hs
        stuck = [client for client in hs.layer.clients.values() if client.flow == flow and _lasts(client)]
        if not stuck:
            return
        wall = hs.wall(now)
        for record in hs.bindings:
            if record.is_gateway and any(binding.flow == flow for binding in record.bindings.values()):
                others = [other for other in hs.proxy.flows_of(record.user, wall) if other != flow]
                for client in stuck:
                    if others:
                        client.move(others[0], now)
                    else:
                        client.flow = NOWHERE
                        self._waiting.setdefault(record.user, []).append(client)

    def followed(self, server: ServerTransaction, request: Request, flow: Flow, now: float) -> None:
        """A request has come again over another flow. Only who is registered may turn its answers away: the branch
        alone is no secret to those who see it pass. And only the later copy does: one may have been slow."""
        hs, at = self._hs, server.request.names.index("via")
        via = request.lines[request.names.index("via")]
        if _moves(via) <= _moves(server.request.lines[at]):
            return
        if hs.knows(flow, now) or (flow.reliable and hs.knows_host(flow.remote[0], now)):
            server.flow = flow
            server.request.lines[at] = via


def _follow(client: ClientTransaction, flow: Flow, now: float) -> None:
    """Go on over this flow, unless the request has been answered over another: it would begin anew there."""
    if isinstance(client.user, Leg) and client.user.ended and client.state < State.PROCEEDING:
        client.abandon()
    else:
        client.move(flow, now)


def _lasts(client: ClientTransaction) -> bool:
    """Whether a request goes on as the same where its flow breaks. Of a datagram that bounces, only what rings does."""
    if client.finished:
        return False
    return client.flow.reliable or client.method == "CANCEL" or client.state is State.PROCEEDING


def _moves(via: str) -> int:
    """How often a SIP-NMS has moved this request, as it says in its Via."""
    count = via.partition(MOVED)[2].partition(";")[0].partition(",")[0].strip()
    return int(count) if count.isdecimal() and len(count) < 6 else 0
