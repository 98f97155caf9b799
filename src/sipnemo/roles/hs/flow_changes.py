"""A SIP-NMS has lost a path: what was under way on its flow goes on over another (R2, R3).

The SIP-NMS says so itself: by a REGISTER that takes the flow away, or by sending a request again, the same transaction,
from another of its paths. Either way nothing begins anew: branches stay, so whoever had the message already takes it
for a retransmission (RFC 3261 §17.2.3) and repeats what it had answered. Nobody rings twice, and what was lost with
the path, be it INVITE, 180, 487 or CANCEL, is there one round trip later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sipnemo.roles.hs.bindings import Binding, Record
from sipnemo.sip.flow import Flow
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.hs.node import HomeServer


class FlowChanges:
    """Takes transactions from flow to flow."""

    def __init__(self, hs: HomeServer) -> None:
        self._hs: Final = hs

    def changed(self, record: Record, before: Mapping[str, Binding], now: float) -> None:
        """The bindings of a SIP-NMS have changed; `before` are those it had."""
        hs = self._hs
        left = hs.proxy.flows_of(record.user, hs.wall(now))
        gone = {binding.flow for binding in before.values() if binding.flow is not None}.difference(left)
        if not gone or not left:
            return
        best = left[0]
        for client in list(hs.layer.clients.values()):
            if client.flow in gone:
                client.move(best, now)
        for server in list(hs.layer.servers.values()):
            if server.flow in gone:
                server.flow = best
                if server.request.method == "INVITE":  # the SIP-NMS sends any other again itself
                    server.repeated(now)

    def followed(self, server: ServerTransaction, flow: Flow, now: float) -> None:
        """A request has come again over another flow. Only who is registered may turn its answers away: the branch
        alone is no secret to those who see it pass."""
        hs = self._hs
        if hs.knows(flow, now) or (flow.reliable and hs.knows_host(flow.remote[0], now)):
            server.flow = flow
