"""What the SIP layers ask of the shell; data only."""

from __future__ import annotations

from typing import NamedTuple

from sipnemo.sip.flow import Flow


class Send(NamedTuple):
    """Send these octets on this flow; on a stream transport the shell connects when no connection is open."""

    data: bytes
    flow: Flow


class Lookup(NamedTuple):
    """Ask DNS; `kind` is NAPTR, SRV, A or AAAA. Answered by the input `Answer` with the same ticket."""

    ticket: int
    name: str
    kind: str
