"""The Binding List (RO-1, MH-7): who is registered where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BindingEntry:
    """One contact address of one registered node, as operators see it."""

    uri: str
    "The node's identity, the one it uses in From."

    contact: str
    "Contact URI under which it is reached now."

    priority: int | None
    "Rank of this contact among those of the same SIP-NMS, 1 first, unique (MH-7); None for a phone."

    expires_at: float
    "Instant at which the binding ends unless it is refreshed."

    host_id: str = ""
    "Instance URN of the registered node; empty when it gave none."

    eface_id: int | None = None
    "reg-id of the flow (RFC 5626); None without outbound."

    user_agent: str = ""
    "What the node calls itself."

    def as_row(self, now: float) -> dict[str, Any]:
        """The entry as operators see it; JSON-able."""
        return {
            "uri": self.uri,
            "contact": self.contact,
            "priority": self.priority,
            "expires_in": max(0, round(self.expires_at - now)),
            "host_id": self.host_id,
            "eface_id": self.eface_id,
            "user_agent": self.user_agent,
        }
