"""Calls while no path is ON (R18): they wait for `suspend_for`, and what their SIP-MNs do meanwhile is not lost.

A BYE is answered at once; the SIP-CN gets it as soon as any path is back. An INVITE waits for that path: the phone
shows nothing, and the move that comes first carries its new offer behind it. Whatever else cannot wait without its
sender taking silence for the end of the call (RFC 3261 §12.2.1.2) is answered 500 with Retry-After, which ends
nothing. A path that is OFF only because the SIP-HS does not answer may lead to the SIP-CN all the same: there
everything is tried.

When the time is over, both ends are told with BYE and Reason: the inside at once, the outside when a path is back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.endpoint import Attempts
from sipnemo.roles.nms.call.forward import Forward
from sipnemo.roles.nms.call.session import Dialog, Session
from sipnemo.roles.nms.call.signed import SignedRequest
from sipnemo.roles.node import Count
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Request, Response
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import Timer
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

AGAIN_AFTER: Final = 5
"Seconds after which a SIP-MN may repeat what could not be passed on."
SAY_EVERY: Final = 0.02
"Seconds between two BYEs that were owed: the re-INVITEs of living calls come first."
REPEAT_AFTER: Final = 30.0
"Seconds after a BYE that a dead path has swallowed, or that found no way."
OWED_FOR: Final = 3600.0
"Seconds after which the SIP-CN has found out by itself."


class Suspension:
    """Answers SIP-MNs in the place of far ends that cannot be reached."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node

    def takes(self, server: ServerTransaction, request: Request, session: Session, now: float) -> bool:
        """Whether a SIP-MN's request within a live call is dealt with here, since no path is ON."""
        node = self._node
        if session.path.works or not session.live or node.paths.on():
            return False
        if request.method == "BYE":
            if session.dialog is None or request.to_tag != session.dialog.remote_tag:
                return False
            node.respond(server, 200, now)
            self._leave(session, request, now)
            return True
        if session.path in node.doubtful():
            return False
        if request.method == "INVITE":
            if any(known.request.method == "INVITE" for known, _ in session.held if not known.finished):
                raise SipError(491)
            node.respond(server, 100, now)
            session.held.append((server, request))
            return True
        raise SipError(500, "No uplink", (f"Retry-After: {AGAIN_AFTER}",))

    def begins(self, now: float) -> None:
        """The last path has gone: a BYE that waits for its answer over it waits no longer."""
        for client in list(self._node.layer.clients.values()):
            attempts = client.user
            if not isinstance(attempts, Attempts) or client.finished or not isinstance(attempts.user, Forward):
                continue
            forward = attempts.user
            if forward.request.method == "BYE" and forward.outward and not forward.session.path.works:
                client.abandon()
                if not forward.server.finished:
                    self._node.respond(forward.server, 200, now)
                self._leave(forward.session, forward.request, now)

    def unanswered(self, forward: Forward, status: int, now: float) -> tuple[int, tuple[str, ...]]:
        """What a SIP-MN is told, and with which header lines, of a request that no far end has answered."""
        session = forward.session
        if not forward.outward or forward.initial or not session.live or status not in (408, 503):
            return status, ()
        if session.path.works:
            return status, ()  # the far end is to blame
        if forward.request.method == "BYE":
            if forward.dialog is session.dialog:
                self._node.goodbyes.owe(session, _reason(forward.request), now)
            return 200, ()
        return 500, (f"Retry-After: {AGAIN_AFTER}",)

    def _leave(self, session: Session, bye: Request, now: float) -> None:
        self._node.goodbyes.owe(session, _reason(bye), now)
        self._node.calls.end(session, now)


class Goodbyes:
    """BYEs that far ends have not got yet."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self._owed: dict[Session, Owed] = {}
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._owed)

    def owe(self, session: Session, reason: str, now: float) -> None:
        """The call is over, and its SIP-CN is to be told, with this Reason value (RFC 3326), as soon as it can be."""
        if session.dialog is not None and session.live:
            self._owed[session] = Owed(session.dialog, (f"Reason: {reason}",) if reason else (), now + OWED_FOR, now)
            self._set(now)

    def path_on(self, now: float) -> None:
        """A path is back."""
        for owed in self._owed.values():
            owed.due_at = now
            if owed.request is not None and owed.path is not None and not owed.path.on:
                owed.request.abandon()  # it was sent over a path that has turned out to be dead
                owed.request, owed.under_way = None, False
        if self._owed:
            self._set(now)

    def _set(self, at: float) -> None:
        if self._timer is not None:
            if self._timer.at <= at:
                return
            self._timer.cancel()
        self._timer = self._node.timers.set(at, self._next)

    def _next(self, now: float) -> None:
        """Say one of them that is due."""
        self._timer = None
        for session in [session for session, owed in self._owed.items() if owed.until <= now]:
            del self._owed[session]
        if not self._node.ranked(None) and not self._node.doubtful():
            return
        waiting = [(session, owed) for session, owed in self._owed.items() if not owed.under_way]
        due = next(((session, owed) for session, owed in waiting if owed.due_at <= now), None)
        if due is not None:
            self._say(*due, now)
        rest = [owed.due_at for _, owed in waiting if due is None or owed is not due[1]]
        if rest:
            self._set(max(now + SAY_EVERY, min(rest)))

    def _say(self, session: Session, owed: Owed, now: float) -> None:
        owed.under_way = True

        def located(targets: list[Target], at: float) -> None:
            flow = next((flow for flow in map(self._node.way_out, targets) if flow is not None), None)
            owed.path = self._node.paths.of(flow.local) if flow is not None else None
            if flow is None:
                self._later(session, at)
            else:
                owed.request = SignedRequest(self._node, self, session, owed.dialog, "BYE", owed.lines, "")
                owed.request.send(flow, at)

        self._node.calls.locate_dialog(owed.dialog, located, now)

    def on_answer(self, request: SignedRequest, response: Response, now: float) -> None:
        """The SIP-CN knows, whatever it says."""
        if response.status >= 200 and self._owed.pop(request.session, None) is not None:
            self._node.act(Count("goodbyes"))

    def on_silence(self, request: SignedRequest, status: int, now: float) -> None:
        """It does not: once more, unless it is the SIP-CN that has gone."""
        owed = self._owed.get(request.session)
        if owed is not None and owed.path is not None and owed.path.on:
            del self._owed[request.session]
        else:
            self._later(request.session, now)

    def _later(self, session: Session, now: float) -> None:
        owed = self._owed.get(session)
        if owed is not None:
            owed.under_way = False
            owed.due_at = now + REPEAT_AFTER
            self._set(owed.due_at)


class Owed:
    """One BYE."""

    __slots__ = ("dialog", "due_at", "lines", "path", "request", "under_way", "until")

    def __init__(self, dialog: Dialog, lines: tuple[str, ...], until: float, due_at: float) -> None:
        self.dialog = dialog
        self.lines = lines
        self.until = until
        "When it is given up."
        self.due_at = due_at
        "When it is said next."
        self.under_way = False
        self.path: Path | None = None
        "What it was last sent over."
        self.request: SignedRequest | None = None
        "The BYE on its way."


def _reason(bye: Request) -> str:
    """What the SIP-MN's BYE gives as its reason."""
    return ", ".join(bye.values("reason")) if "reason" in bye.names else ""
