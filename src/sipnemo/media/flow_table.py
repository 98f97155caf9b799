"""The flows of one media plane, and which of them are two directions of the same stream."""

from __future__ import annotations

from collections import Counter

from sipnemo.media.flow import FlowKey, MediaFlow


class FlowTable:
    """Flows by key. A peer that was learnt stands in the place of the signalled one."""

    def __init__(self) -> None:
        self.flows: dict[FlowKey, MediaFlow] = {}

        self.hosts: Counter[str] = Counter()
        "Own addresses at which media arrives → number of flows."

        self._pairs: dict[tuple[int, int], set[FlowKey]] = {}

    def put(self, flow: MediaFlow) -> None:
        """Add a flow, or replace the one with the same key."""
        self.pop(flow.key)
        self.flows[flow.key] = flow
        self.hosts[flow.key.host] += 1
        self._pairs.setdefault((flow.key.port, flow.source_port), set()).add(flow.key)

    def pop(self, key: FlowKey) -> MediaFlow | None:
        """Remove and return a flow; None when there is none."""
        flow = self.flows.pop(key, None)
        if flow is None:
            return None
        self.hosts[key.host] -= 1
        if not self.hosts[key.host]:
            del self.hosts[key.host]
        pair = (key.port, flow.source_port)
        keys = self._pairs[pair]
        keys.discard(key)
        if not keys:
            del self._pairs[pair]
        return flow

    def opposite(self, flow: MediaFlow) -> list[MediaFlow]:
        """The flows of the other direction: `flow.reverse`, and those that run between the same ports to the same peer.

        Towards a SIP-MN there is one per E-face, since the SIP-CN may send to any of them.
        """
        reverse = self.flows.get(flow.reverse) if flow.reverse is not None else None
        if reverse is None:
            return []
        pair = self._pairs.get((reverse.key.port, reverse.source_port), set())
        found = (self.flows[key] for key in sorted(pair))
        return [other for other in found if other.peer == reverse.peer and other.group == reverse.group]
