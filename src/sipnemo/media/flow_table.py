"""The flows of one media plane, and which of them are two directions of the same stream."""

from __future__ import annotations

from sipnemo.media.flow import FlowKey, MediaFlow


class FlowTable:
    """Flows by key. A peer that was learnt stands in the place of the signalled one."""

    def __init__(self) -> None:
        self.flows: dict[FlowKey, MediaFlow] = {}
        self._pairs: dict[tuple[int, int], tuple[FlowKey, ...]] = {}

    def put(self, flow: MediaFlow) -> None:
        """Add a flow, or replace the one with the same key."""
        key = flow.key
        pair = (key.port, flow.source_port)
        old = self.flows.get(key)
        if old is not None:
            if old.source_port == flow.source_port:
                self.flows[key] = flow
                return
            self.pop(key)
        self.flows[key] = flow
        self._pairs[pair] = (*self._pairs.get(pair, ()), key)

    def pop(self, key: FlowKey) -> MediaFlow | None:
        """Remove and return a flow; None when there is none."""
        flow = self.flows.pop(key, None)
        if flow is None:
            return None
        pair = (key.port, flow.source_port)
        left = tuple(other for other in self._pairs[pair] if other != key)
        if left:
            self._pairs[pair] = left
        else:
            del self._pairs[pair]
        return flow

    def opposite(self, flow: MediaFlow) -> list[MediaFlow]:
        """The flows of the other direction: `flow.reverse`, and those that run between the same ports to the same peer.

        Towards a SIP-MN there is one per E-face, since the SIP-CN may send to any of them.
        """
        reverse = self.flows.get(flow.reverse) if flow.reverse is not None else None
        if reverse is None:
            return []
        pair = self._pairs.get((reverse.key.port, reverse.source_port), ())
        found = (self.flows[key] for key in pair)
        return [other for other in found if other.peer == reverse.peer and other.group == reverse.group]
