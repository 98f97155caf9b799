"""Session timers of the two sides (RFC 4028, R18).

The timer is the two ends' own: what they agree passes through, and who refreshes refreshes the other. The gateway does
not refresh for anybody, or a call whose one end has vanished would live for ever; with one exception that its own
moves make necessary. A re-INVITE of ours is a refresh for the SIP-CN: where it is the SIP-CN that refreshes, it begins
its wait anew, while the SIP-MN, which has seen nothing, goes on waiting for a refresh that now comes later than it
waits. So after a move the gateway sees to it that such a SIP-MN is refreshed in time, by an UPDATE, once for each
refresh of the SIP-CN's that the move has put off.

Our re-INVITE says the interval as it was agreed, who refreshes, and the same as Min-SE: the SIP-CN may answer no
shorter one (§9), which the SIP-MN would not know of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.endpoint import via_line
from sipnemo.roles.node import Count
from sipnemo.sip.message import Response, parameter

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.sip.transaction import ClientTransaction

LONGEST: Final = 86_400
"Seconds: nobody is given a longer interval for the sake of a 422."
AGAIN_AFTER: Final = 5.0
"Seconds after a refresh that was refused for the moment."


class Behind:
    """A SIP-MN whose timer a move of its call has not restarted."""

    __slots__ = ("asked", "lapses_at", "outside_lapses_at", "span")

    def __init__(self, lapses_at: float, span: float) -> None:
        self.lapses_at = lapses_at
        "When its timer runs out."
        self.span = span
        "The interval that it knows, in seconds."
        self.outside_lapses_at = 0.0
        "What the session's timer was set to by our move: another value says that the ends have refreshed since."
        self.asked = False
        "An UPDATE is under way."


class SessionTimers:
    """What the gateway must know and do of them."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._behind: dict[Session, Behind] = {}

    def __len__(self) -> int:
        return len(self._behind)

    # ----------------------------------------------------------------------------------------------- our re-INVITE

    def lines(self, session: Session) -> list[str]:
        """What our re-INVITE says of the session timer, where one is in force."""
        if not session.expires:
            return []
        return [
            "Supported: timer",
            f"Session-Expires: {session.expires}",
            f"Min-SE: {session.expires.partition(';')[0]}",
        ]

    def too_small(self, session: Session, response: Response) -> bool:
        """Take in a 422 to a re-INVITE of ours; whether the next one asks for an interval that is long enough."""
        least, now_at = _seconds(response.value("min-se")), _seconds(session.expires)
        if not session.expires or not now_at < least <= LONGEST:
            return False
        self._left_behind(session)  # it knows the interval of before, and only we know that it was raised
        session.expires = f"{least};{session.expires.partition(';')[2]}"
        return True

    def moved(self, session: Session, response: Response, now: float) -> None:
        """The SIP-CN has answered our re-INVITE: its side's timer begins anew, the SIP-MN's does not."""
        behind = self._left_behind(session)
        # A SIP-CN that says nothing of a timer any more will not refresh: what was agreed holds for the SIP-MN.
        session.expires = agreed_expires(response, True) or session.expires
        session.refreshed(now)
        if behind is not None:
            behind.outside_lapses_at = session.lapses_at

    def _left_behind(self, session: Session) -> Behind | None:
        """The SIP-MN of this session, where it waits for refreshes of the SIP-CN."""
        behind = self._behind.get(session)
        if behind is not None and behind.outside_lapses_at != session.lapses_at:
            behind = None  # refreshed end to end since
        if behind is None and session.lapses_at and session.expires.endswith("uas"):
            behind = self._behind[session] = Behind(session.lapses_at, float(_seconds(session.expires)))
            behind.outside_lapses_at = session.lapses_at
        return behind

    # ------------------------------------------------------------------------------------------------- the SIP-MN's

    def keep(self, now: float) -> None:
        """Refresh the SIP-MNs whose turn it is; to be called every few seconds."""
        for session, behind in list(self._behind.items()):
            if not session.live or session.lapses_at != behind.outside_lapses_at:
                del self._behind[session]  # over, or refreshed end to end
            elif not behind.asked and now >= behind.lapses_at - behind.span / 2:
                self._refresh(session, behind, now)

    def _refresh(self, session: Session, behind: Behind, now: float) -> None:
        """Tell the SIP-MN in the SIP-CN's place that the call lives."""
        behind.asked = True
        session.i.sent += 1
        branch = self._node.ids.branch()
        lines = [
            f"UPDATE {session.mn_target} SIP/2.0",
            via_line(session.inside, branch),
            "Max-Forwards: 70",
            f"From: {session.remote_value}",
            f"To: {session.local_value}",
            f"Call-ID: {session.call_id}",
            f"CSeq: {session.i.sent} UPDATE",
            f"Contact: <{session.dialog.target if session.dialog is not None else session.remote_value}>",
            "Supported: timer",
            f"Session-Expires: {_seconds(session.expires)};refresher=uac",
            "Content-Length: 0\r\n\r\n",
        ]
        data = "\r\n".join(lines).encode("latin-1")
        user = _Refresh(self, session, behind)
        self._node.layer.request(user, branch, "UPDATE", data, session.inside, now)
        self._node.act(Count("session_refreshes"))

    def refreshed(self, session: Session, behind: Behind, response: Response | None, now: float) -> None:
        """What the SIP-MN has said to it; None: nothing."""
        behind.asked = False
        if self._behind.get(session) is not behind:
            return
        status = response.status if response is not None else 408
        if status < 300:
            behind.span = float(_seconds(session.expires))
            behind.lapses_at = now + behind.span
            session.heard_at = now
        elif status in (491, 500, 503):
            behind.lapses_at += min(AGAIN_AFTER, behind.span / 12)  # the next look comes a little later
        else:
            # A phone without UPDATE, or one that is gone: its own timer decides.
            self._node.log("info", "phone takes no refresh of its session timer", session.call_id, status=status)
            del self._behind[session]


class _Refresh:
    """One UPDATE to a SIP-MN."""

    __slots__ = ("_behind", "_session", "_timers")

    def __init__(self, timers: SessionTimers, session: Session, behind: Behind) -> None:
        self._timers = timers
        self._session = session
        self._behind = behind

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The SIP-MN has answered."""
        if response.status >= 200:
            self._timers.refreshed(self._session, self._behind, response, now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """It has not."""
        self._timers.refreshed(self._session, self._behind, None, now)


def agreed_expires(response: Response, outward: bool) -> str:
    """Session-Expires as our own re-INVITE would say it, after this 2xx (RFC 4028 §7.4); "" when there is none.

    `refresher` counts from who sent the request, who refreshes where none is named; towards the SIP-CN we stand for the
    SIP-MN.
    """
    value = response.value("session-expires")
    if not value:
        return ""
    seconds = _seconds(value)
    if not seconds:
        return ""
    uac_refreshes = (parameter(f"<>;{value.partition(';')[2]}", "refresher") or "uac").lower() == "uac"
    return f"{seconds};refresher={'uac' if uac_refreshes == outward else 'uas'}"


def _seconds(value: str) -> int:
    """The span that a Session-Expires or Min-SE value begins with; 0 when it is malformed."""
    text = value.partition(";")[0].strip()
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 0
