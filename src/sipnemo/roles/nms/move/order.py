"""In which order calls move: the urgent first, then those that speak, then those on hold, then the rest.

Looked at when calls move; of a call that does not, only what its INVITE says of urgency is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.nemo import urgency
from sipnemo.sip.message import Request, uri_of

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.settings import PolicySettings

SPEAKING, ON_HOLD, NO_MEDIA, RINGING = range(4)
"Classes of calls, the first to move first."
_STILL = ("a=sendonly", "a=recvonly", "a=inactive")

Rank = tuple[int, int]


def of_request(request: Request, policy: PolicySettings) -> int:
    """The urgency that a first INVITE states."""
    names = request.names
    if "resource-priority" in names:
        stated = urgency.stated(request.values("resource-priority"), policy.resource_priority)
        if stated:
            return stated
    return urgency.EMERGENCY if "priority" in names and request.value("priority").lower() == "emergency" else 0


def rank(session: Session, policy: PolicySettings) -> Rank:
    """The place of a call among those that move: less is earlier."""
    stated = session.urgent
    if policy.urgent and stated < urgency.NAMED:
        ends = (session.mn_user, uri_of(session.remote_value or session.to_value))
        stated = urgency.named(ends, policy.urgent) or stated
    return (-stated, kind(session))


def kind(session: Session) -> int:
    """What moving this call early would save: speech, or only the call."""
    if not session.live:
        return RINGING
    media = session.media
    if media is None or not media.mn_sdp or not any(end.active for end in media.mn):
        return NO_MEDIA
    # Who answers a hold writes recvonly, so the SIP-MN's own description tells of either end's (RFC 3264 §8.4).
    text = media.mn_sdp
    if all(end.held for end in media.mn if end.active):
        return ON_HOLD
    if not any(word in text for word in _STILL):
        return SPEAKING
    parts = text.split("\nm=")
    everywhere = any(word in parts[0] for word in _STILL)
    flowing = any(
        "a=sendrecv" in part or not (everywhere or any(word in part for word in _STILL))
        for part, end in zip(parts[1:], media.mn, strict=False)
        if end.active
    )
    return SPEAKING if flowing else ON_HOLD
