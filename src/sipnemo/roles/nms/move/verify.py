"""Are both ends heard by the new path (R7)? What the counters of a call's flows say, per direction.

*Down*: packets arrive at the address that only the new offer has named. RTP and RTCP count alike: an RTCP packet of a
SIP-CN that is on hold, or that has nothing to say, shows as well that it has followed.

*Up*: what arrives at the SIP-CN nobody tells the gateway; its receiver reports might, but they come every five seconds,
SRTP hides them, and the kernel plane looks at no payload (RO-9). Hence a rule: the direction is verified when packets
of the SIP-MN leave by the new path, and the SIP-CN has answered a request that went out there. The same uplink has
then carried a request up and its answer down. What this cannot see is a filter that lets SIP through and no media.

RTP sequence numbers are not read, for the same reason. A path that passes one packet in ten counts as heard.

Silence proves nothing of somebody who was silent before. Only a SIP-CN that was heard in the seconds before the move,
and whose answer says that it sends, is looked for on one path after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sipnemo.media.flow import INSIDE, FlowKey
from sipnemo.roles.nms.call.media import known
from sipnemo.roles.nms.move.outcome import Outcome, Reason
from sipnemo.sdp.description import SdpError

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.path.load import Speech

RTCP_WITHIN: Final = 7.0
"Seconds within which RTCP is due: 5 s, half as much again at random, over 1.22 (RFC 3550 §6.2, §6.3.1)."

Counters = Mapping[FlowKey, tuple[int, int]]


class Verification:
    """What has been seen of one call's media since its move began."""

    __slots__ = ("_base", "_before", "_heard", "_rtcp", "_session", "_up_base", "receives", "sends", "sent", "spoke")

    def __init__(self, session: Session, before: Speech) -> None:
        self._session = session
        self._before = before
        self._base: dict[FlowKey, int] | None = None
        "Packets per flow at the first reading."
        self._heard: dict[str, int] = {}
        "Packets of the SIP-CN since then, by our address that they came to."
        self._rtcp = False
        "Something has been heard in this call at all, so there may be RTCP to wait for."
        self._up_base: int | None = None
        self.spoke = (False, False)
        "Whether there was RTP up and down in the seconds before the move."
        self.sends = self.receives = True
        "What the SIP-CN does by its answer; known only when that has come."
        self.sent = False
        "Packets of the SIP-MN have left by the path that it is on now."

    def keys(self, host: str) -> list[FlowKey]:
        """The flows to be counted next: all for the first time, then what leaves, and what comes to this address."""
        media = self._session.media
        if media is None:
            return []
        if self._base is None:
            return list(media.flows)
        return [key for key, flow in media.flows.items() if flow.group != INSIDE or key.host == host]

    def expect_media(self) -> None:
        """The SIP-CN was heard before it followed to a path by which it is not: its silence is no habit."""
        self._before = self._before._replace(spoke_down=True)

    def path_taken(self) -> None:
        """The SIP-MN's packets leave by another path from now on."""
        self._up_base = None
        self.sent = False

    def answered(self, description: str, mirrored: bool = False) -> None:
        """The SIP-CN has answered with this description ("": with none); `mirrored`: it is the SIP-MN's."""
        if not description:
            return
        try:
            media = [medium for medium in known(description)[0].media if medium.port]
        except SdpError:
            return
        sends = any(medium.direction in ("sendrecv", "sendonly") for medium in media)
        receives = any(
            medium.direction in ("sendrecv", "recvonly")
            and not (medium.connection is not None and medium.connection.unspecified)
            for medium in media
        )
        self.sends, self.receives = (receives, sends) if mirrored else (sends, receives)

    def counted(self, counters: Counters) -> None:
        """A reading of the counters."""
        media = self._session.media
        if media is None:
            return
        base = self._base
        up, heard, rtp = 0, dict.fromkeys(self._heard, 0), [0, 0]
        for key, flow in media.flows.items():
            if key not in counters:
                continue
            packets = counters[key][0]
            if flow.group != INSIDE:
                up += packets
            elif base is not None:
                # A flow that was not there before has counted from nothing; so has one that was made anew.
                known = base.get(key, 0)
                heard[key.host] = heard.get(key.host, 0) + packets - (known if known <= packets else 0)
            if base is None:
                rtp[flow.group == INSIDE] += packets if key.port % 2 == 0 else 0
                self._rtcp = self._rtcp or (packets > 0 and flow.group == INSIDE)
        if base is None:
            self._base = {key: counters[key][0] for key in media.flows if key in counters}
            before = self._before
            self.spoke = (before.spoke_up or rtp[0] > before.up, before.spoke_down or rtp[1] > before.down)
        for host, packets in heard.items():
            self._heard[host] = max(packets, self._heard.get(host, 0))
        if self._up_base is None:
            self._up_base = up
        self.sent = self.sent or up > self._up_base

    def heard(self, host: str) -> int:
        """Packets of the SIP-CN that have come to this address since the move began, as far as counted."""
        return self._heard.get(host, 0)

    def settled(self, host: str) -> bool:
        """Whether nothing is left to wait for."""
        up_due = self.receives and self.spoke[0]
        return (self.heard(host) > 0 or (up_due and not self.sends)) and (self.sent or not up_due)

    @property
    def speaks(self) -> bool:
        """Whether RTP of the SIP-CN is due."""
        return self.sends and self.spoke[1]

    @property
    def may_have_rtcp(self) -> bool:
        """Whether there is no RTP to wait for, and RTCP may come: the SIP-CN has been heard at some time."""
        return self._rtcp and not self.speaks

    def verdict(self, host: str) -> tuple[Outcome, Reason]:
        """What is to be said of this path when waiting is over."""
        up_due = self.receives and self.spoke[0]
        if self.heard(host) or (up_due and self.sent and not self.sends):
            missing = up_due and not self.sent
            return (Outcome.UNVERIFIED, Reason.NOT_SENT) if missing else (Outcome.VERIFIED, Reason.NONE)
        if not self.sends:
            return Outcome.UNVERIFIED, Reason.HELD
        return Outcome.UNVERIFIED, Reason.NOT_HEARD if self.spoke[1] else Reason.SILENT

    def per_direction(self, host: str) -> tuple[str, str]:
        """Up and down in one word each: seen, held, silent (as before the move) or missing."""
        return (
            _word(self.sent, self.receives, self.spoke[0]),
            _word(self.heard(host) > 0, self.sends, self.spoke[1]),
        )


def _word(seen: bool, allowed: bool, spoke: bool) -> str:
    if seen:
        return "seen"
    return "held" if not allowed else "missing" if spoke else "silent"
