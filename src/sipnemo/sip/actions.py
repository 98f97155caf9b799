"""What the SIP layers ask of the shell; data only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from sipnemo.sip.flow import Flow


class Send(NamedTuple):
    """Send these octets on this flow; on a stream transport the shell connects when no connection is open."""

    data: bytes
    flow: Flow


send: Final[Callable[[tuple[bytes, Flow]], Send]] = partial(tuple.__new__, Send)
"Makes a Send from octets and flow. One of every message: calling the class takes three times as long."


class Lookup(NamedTuple):
    """Ask DNS; `kind` is NAPTR, SRV, A or AAAA. Answered by the input `Answer` with the same ticket."""

    ticket: int
    name: str
    kind: str
