"""The entries of the Egress List (MH-1): what is known of each path to the Internet."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple


class Status(Enum):
    """Whether a path works."""

    ON = "ON"
    OFF = "OFF"


class PathKey(NamedTuple):
    """What names a path."""

    host_id: str
    eface_id: int
    contact: tuple[str, int]


@dataclass(frozen=True, slots=True)
class EgressEntry:
    """One path: one contact address of one E-face of one SIP-NMS (MH-1)."""

    host_id: str
    "Instance URN of the SIP-NMS that manages the path (RFC 5626 +sip.instance)."

    eface_id: int
    "The E-face, as its SIP-NMS numbers it (RFC 5626 reg-id)."

    contact: tuple[str, int]
    "Contact address and port; an IPv6 address without brackets."

    status: Status
    "OFF as soon as the path is known broken; ON again only after hold-down (MH-3)."

    load: float = 0.0
    "Share of the E-face's capacity in use, in percent, 0.0 to 100.0 (MH-4)."

    priority: int = 1000
    "1 is tried first. Learnt paths come without one, and therefore late."

    capacity_bps: float | None = None
    "Configured capacity of the E-face in bit/s; None when it is not known."

    rtt: float | None = None
    "Smoothed round-trip time of the probes, in seconds; None when none was answered yet."

    @property
    def key(self) -> PathKey:
        """What names this path."""
        return PathKey(self.host_id, self.eface_id, self.contact)

    @property
    def is_on(self) -> bool:
        """Whether the path works."""
        return self.status is Status.ON

    @property
    def family(self) -> int:
        """4 or 6: the address family of the contact (MH-5)."""
        return 6 if ":" in self.contact[0] else 4

    @property
    def contact_text(self) -> str:
        """The contact as in a URI: '192.0.2.1:5060' or '[2001:db8::1]:5060'."""
        host, port = self.contact
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def as_row(self) -> dict[str, Any]:
        """The entry as operators see it; JSON-able."""
        return {
            "host_id": self.host_id,
            "eface_id": self.eface_id,
            "contact": self.contact_text,
            "status": self.status.value,
            "load": round(self.load, 1),
            "priority": self.priority,
            "capacity_bps": self.capacity_bps,
            "rtt": self.rtt,
        }
