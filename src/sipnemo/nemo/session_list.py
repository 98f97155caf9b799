"""The Session List (RO-6, MH-9): which sessions run over which E-face."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class SessionStatus(Enum):
    """How far a session is."""

    INVITING = "INVITING"
    RINGING = "RINGING"
    SUCCESS = "SUCCESS"
    TERMINATED = "TERMINATED"
    "Shown for the moment between BYE and its answer; then the entry is deleted."


@dataclass(frozen=True, slots=True)
class SessionEntry:
    """One session, as operators see it."""

    from_uri: str
    from_contact: str
    to_uri: str

    to_contact: str
    "From the Request-URI for a SIP-CN, from the Binding List for a SIP-MN."

    status: SessionStatus

    eface_id: int | None
    "The E-face that carries the session; None when it is local or waits for a path."

    lr: bool = False
    "Local route: both ends are inside, and so is the media (RO-13)."

    call_id: str = ""

    path: str = ""
    "Contact address of the path in use."

    started_at: float | None = None
    "Instant of the answer; None before."

    moves: int = 0
    "How often the session has moved to another path."

    def as_row(self, now: float) -> dict[str, Any]:
        """The entry as operators see it; JSON-able."""
        return {
            "from_uri": self.from_uri,
            "from_contact": self.from_contact,
            "to_uri": self.to_uri,
            "to_contact": self.to_contact,
            "status": self.status.value,
            "eface_id": self.eface_id,
            "lr": self.lr,
            "call_id": self.call_id,
            "path": self.path,
            "seconds": None if self.started_at is None else max(0, round(now - self.started_at)),
            "moves": self.moves,
        }
