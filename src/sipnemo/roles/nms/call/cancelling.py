"""What follows when the CANCEL of an INVITE whose path died is answered over another (RFC 3261 §9.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.nms.call.forward import Unheard
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Response
from sipnemo.sip.transaction import ClientTransaction

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.early_invite import EarlyInvite

CANCELLED_WITHIN: Final = 1.0
"Seconds that the end of a cancelled INVITE is waited for, once the CANCEL is answered."


class Cancelled(Unheard):
    """The user of a CANCEL after which the INVITE is sent anew."""

    def __init__(self, early: EarlyInvite) -> None:
        self._early = early

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """200: it is cancelled, or was answered before; 481: it never came."""
        if 200 <= response.status < 300:
            self._early.cancelled(response.to_tag, now)
        elif response.status >= 300:
            self._early.send_anew(now)


class Ended(Unheard):
    """The user of a CANCEL that ends the call."""

    def __init__(self, early: EarlyInvite, invite: ClientTransaction, flow: Flow) -> None:
        self._early = early
        self._invite = invite
        self._flow = flow

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The INVITE should end with 487 now."""
        if response.status >= 200:
            self.wait(now)

    def wait(self, now: float) -> None:
        """For the 487."""
        early, invite, flow = self._early, self._invite, self._flow
        invite.layer.timers.set(now + CANCELLED_WITHIN, lambda at: early.end_dialogs(invite, flow, at))
