"""Calls from anywhere but the SIP-HS: refused, counted, and told of at a pace that no scanner can set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.node import Count
from sipnemo.sip.flow import Flow

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer

SAY_EVERY = 60.0
"Seconds between two lines about one source."
MOST = 64
"Sources told of within that time: addresses may be forged."


class Strangers:
    """Remembers whom the log has told of."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._said: dict[str, float] = {}
        "When, by source; the oldest first."

    def refused(self, flow: Flow, call_id: str, now: float) -> None:
        """An INVITE of a stranger is refused."""
        self._node.act(Count("strangers_refused"))
        said = self._said
        while said and said[oldest := next(iter(said))] <= now - SAY_EVERY:
            del said[oldest]
        source = flow.remote[0]
        if source not in said and len(said) < MOST:
            said[source] = now
            self._node.log("warning", "INVITE from a stranger refused", call_id, source=source)
