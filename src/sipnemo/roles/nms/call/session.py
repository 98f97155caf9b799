"""One entry of the Session List, with what a dialog-transparent B2BUA must remember of its two sides (RO-6, MH-9).

Call-ID, tags and Request-URI are the same on both sides; Via, Contact, Record-Route, CSeq and SDP addresses are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.nms.call.media import SessionMedia
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.early import Early
    from sipnemo.roles.nms.call.forward import Forward
    from sipnemo.roles.nms.move.reinvite import Move
    from sipnemo.roles.nms.path.paths import Path


ACK_WITHIN: Final = 2.0
"Seconds that a re-INVITE of ours waits for the ACK of a 2xx to the SIP-CN (RFC 3261 §14.1)."
_NONE: Final = (0, float("-inf"), "")
_SUCCESS: Final = Status.SUCCESS
"Looking a member up in its Enum costs as much as a call, and `live` is asked ten times in each."


class Dialog:
    """One far end of a session: the SIP-CN, or one of its forks (RFC 3261 §12)."""

    __slots__ = (
        "answer",
        "confirmed",
        "next_hop",
        "other_hop",
        "over",
        "received_from_cn",
        "received_from_mn",
        "remote_tag",
        "routes",
        "takes_update",
        "target",
        "updatable",
    )

    def __init__(self, remote_tag: str, target: str, routes: list[str]) -> None:
        self.remote_tag = remote_tag
        self.answer = ""
        "Its session description, when it has answered after another fork whose description is in force."
        self.confirmed = False
        "And the SIP-MN has acknowledged that."
        self.over = False
        "It was one of several, and has had its BYE."
        self.target = target
        "Remote target: the SIP-CN's Contact URI, refreshed by its target refresh requests."
        self.routes = routes
        "Route header values towards the SIP-CN, ours left out."
        self.next_hop: Target | None = None
        "Where the first route (or the target) was located; None: to be located."
        self.other_hop: Target | None = None
        "The same by the other address family, if it has an address there (R9)."
        self.received_from_mn = 0
        "Highest CSeq of the SIP-MN's requests: each fork has a count of its own (§12.1.2)."
        self.received_from_cn = 0
        "Highest CSeq of the far end's."
        self.takes_update = False
        "It has said so in a reliable provisional response."
        self.updatable = False
        "Early, its offer and answer have passed reliably: an UPDATE may carry an offer (RFC 3311 §5.1)."


class Side:
    """CSeq numbers of one side; the SIP-NMS is one dialog end there (RFC 3261 §12.2)."""

    __slots__ = ("map", "sent")

    def __init__(self) -> None:
        self.sent = 0
        "Of the last request sent on this side."
        self.map: dict[int, int] = {}
        "CSeq of a request as it came in on the other side → as it left here; for ACK, RAck and CANCEL."

    def next(self, number: int) -> int:
        """The CSeq with which a request that came with `number` leaves on this side."""
        self.sent = number if self.sent == 0 else self.sent + 1
        if len(self.map) >= 32:  # an INVITE's must still be there for its ACK, however many PRACKs came between
            del self.map[next(iter(self.map))]
        self.map[number] = self.sent
        return self.sent

    def again(self, number: int) -> int:
        """A new CSeq for a request that is sent anew over another path."""
        self.sent += 1
        self.map[number] = self.sent
        return self.sent


class Session:
    """One call through this SIP-NMS."""

    __slots__ = (
        "ack_awaited_until",
        "acked",
        "acknowledged",
        "answered_at",
        "call_id",
        "created_at",
        "dialog",
        "dialogs",
        "e",
        "early",
        "ending",
        "expires",
        "first",
        "first_cseq",
        "heard_at",
        "held",
        "i",
        "inside",
        "invitation",
        "lapses_at",
        "local_value",
        "media",
        "mn_target",
        "mn_user",
        "move",
        "moves",
        "outgoing",
        "owed",
        "packets",
        "path",
        "pending",
        "phone_tag",
        "remote_value",
        "status",
        "to_value",
        "token",
        "unheard",
        "urgent",
    )

    def __init__(self, call_id: str, outgoing: bool, inside: Flow, path: Path, token: str, now: float) -> None:
        self.call_id = call_id
        self.phone_tag = ""
        "The SIP-MN's tag; with the Call-ID it names the session on both sides."
        self.outgoing = outgoing
        "The SIP-MN called."
        self.inside = inside
        "How the SIP-MN is reached."
        self.mn_target = ""
        "The SIP-MN's Contact URI."
        self.mn_user = ""
        "Address of record of the SIP-MN, for people."
        self.path = path
        self.token = token
        self.local_value = ""
        "From value of our own requests to the SIP-CN: the SIP-MN's, with its tag."
        self.remote_value = ""
        "To value of our own requests: the SIP-CN's, with its tag."
        self.status = Status.INVITING
        self.i = Side()
        self.e = Side()
        self.dialogs: dict[str, Dialog] = {}
        "By the far end's tag: several while an INVITE forks."
        self.dialog: Dialog | None = None
        "The confirmed one."
        self.media: SessionMedia | None = None
        self.pending: Forward | None = None
        "The INVITE, or UPDATE with an offer, at hand that was forwarded: no second offer while it lasts (§14)."
        self.move: Move | None = None
        "The move at hand, if any."
        self.early: Early | None = None
        "It is not answered yet, and its path has died."
        self.held: list[tuple[ServerTransaction, Request]] = []
        "Offers of the SIP-MN that came while a re-INVITE of ours was at hand."
        self.expires = ""
        "Session-Expires towards the SIP-CN as last agreed, with the refresher as we would say it (RFC 4028)."
        self.lapses_at = 0.0
        "When its session timer runs out unless it is refreshed (RFC 4028 §10); 0: it has none."
        self.heard_at = now
        "When either end last gave a sign of life: a request, an answer or a packet."
        self.packets = 0
        "Of all its flows, at the last reading of the counters."
        self.to_value = ""
        "To of the first INVITE."
        self.urgent = 0
        "How urgent its INVITE says that it is (nemo/urgency.py); the greater moves first."
        self.first: Forward | None = None
        "The INVITE that began it."
        self.first_cseq = 0
        "Its CSeq, when the SIP-MN sent it."
        self.moves = 0
        self.ending = False
        "A BYE is on its way: no re-INVITE of ours may overtake it."
        self.acknowledged = False
        "An ACK of a 2xx has passed."
        self.ack_awaited_until = 0.0
        "A 2xx to an INVITE has passed: no INVITE of ours until its ACK, or this instant (§14.1); 0: it has come."
        self.owed = 0
        "CSeq towards the SIP-MN of the SIP-CN's last INVITE that was answered."
        self.acked: tuple[int, float, str] = _NONE
        "The last ACK to the SIP-CN: its CSeq, when it passed, and its description where it had one."
        self.unheard: tuple[int, ...] = ()
        "CSeqs of INVITEs to the SIP-CN whose answers, if any, went to a path that is dead."
        self.invitation: tuple[str, str, int, str] | None = None
        self.created_at = now
        self.answered_at: float | None = None

    def refreshed(self, now: float) -> None:
        """An INVITE or UPDATE has been answered with 2xx: the session timer, if one is agreed, begins anew."""
        seconds = self.expires.partition(";")[0]
        self.lapses_at = now + int(seconds) if len(seconds) < 10 and seconds.isdecimal() else 0.0
        self.heard_at = now

    @property
    def key(self) -> tuple[str, str]:
        """Its place in the Session List."""
        return (self.call_id, self.phone_tag)

    @property
    def reinviting(self) -> bool:
        """An offer of our own waits for its answer: no second one meanwhile."""
        if self.early is not None:
            return self.early.offering
        return self.move is not None and self.move.inviting

    @property
    def live(self) -> bool:
        """Answered and not ended."""
        return self.status is _SUCCESS
