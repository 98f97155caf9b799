"""What must be forwarded where: the media plane's nouns, the same for kernel, user space and simulation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

INSIDE = 0
"The group of all flows towards the SIP-MNs: they leave by the I-face."


class FlowKey(NamedTuple):
    """Own address and port at which the packets of one flow arrive."""

    host: str
    port: int


class MediaFlow(NamedTuple):
    """One direction of one RTP or RTCP stream: packets that arrive at `key` are sent on to `peer`.

    Nothing is added to or taken from a packet (RO-9): the addresses and ports are rewritten, the payload is not
    looked at.
    """

    key: FlowKey

    peer: tuple[str, int]
    "Address and port that the packets are sent on to."

    source_port: int
    "Own port that they leave from: the one at which the other direction arrives."

    group: int
    "The path they leave by: INSIDE, or the number of a MediaPath. The source address is the path's."

    admit: tuple[str, ...] = ()
    """Symmetric RTP: source addresses from which the first packet may replace the *reverse* flow's peer.

    Empty: the signalled peer is final. Once latched a flow stays latched until it is replaced, so packets from a
    foreign address neither hijack nor redirect it."""

    reverse: FlowKey | None = None
    "Key of the opposite direction, whose `peer` is corrected when a packet is learnt from. Only with `admit`."


flow_key: Final[Callable[[tuple[str, int]], FlowKey]] = partial(tuple.__new__, FlowKey)
"Makes a FlowKey of its parts, in a third of the time that calling the class takes: every call needs eight of them."
media_flow: Final[Callable[[tuple[FlowKey, tuple[str, int], int, int, tuple[str, ...], FlowKey | None]], MediaFlow]] = (
    partial(tuple.__new__, MediaFlow)
)
"Makes a MediaFlow of all its parts, likewise."


class MediaPath(NamedTuple):
    """Where a group's packets leave. Replacing it moves every flow of the group at once (RO-10)."""

    group: int

    source: str
    "Own address written into the packets."

    device: str
    "Egress interface; empty: chosen by the routing table for the source address."

    also: tuple[str, str] | None = None
    """Source and device of a second way: every packet leaves by both, while one of the links may be going.

    RTP receivers drop the second copy by its sequence number, SRTP ones by their replay list (RFC 3711 §3.3.2). A
    second way of another address family than the first reaches no peer of the first, and is ignored."""
