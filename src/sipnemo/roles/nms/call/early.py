"""A call that is not answered yet, and whose far end knows an address that is gone (R3).

An address changes in a dialog by a re-INVITE, which must wait for the answer, or by an UPDATE, which need not: where
the far end has said that it takes one, and offer and answer have passed in a way that both know of (RFC 3311 §5.1). So
early media follow by UPDATE if they can; else the re-INVITE follows the answer at once (`Handover.session_stranded`).
A new description in the 2xx would not do: after a 183 with one, a far end does not look at it (RFC 3261 §13.2.1).

What the INVITE of a SIP-MN needs beside that is in `early_invite.py`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sipnemo.nemo.session_list import SessionStatus as Status
from sipnemo.roles.nms.call.media import body_sdp
from sipnemo.roles.nms.call.signed import SignedRequest
from sipnemo.roles.nms.move.reoffer import ALLOW
from sipnemo.sdp.description import SdpError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Response
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Dialog, Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

TELL_AGAIN = 2.0
"Seconds after which an UPDATE that met another offer is tried again (RFC 3311 §5.2, RFC 3261 §14.1)."
TRIES = 3


class Early:
    """What the early dialogs of one session have been told."""

    __slots__ = ("_known", "_node", "_session", "_telling", "_told", "_tries", "_updates", "left")

    def __init__(self, node: MobilityServer, session: Session) -> None:
        self._node = node
        self._session = session
        self.left: Path = session.path
        "The path that the call began on."
        self._known: Path | None = session.path
        "The path that the INVITE, or the answer to it, has named; None: what it named holds no more."
        self._told: dict[str, Path] = {}
        "Tags of dialogs that have been told of another since."
        self._updates: dict[SignedRequest, tuple[Dialog, Path]] = {}
        self._telling: Timer | None = None
        self._tries = 0

    @property
    def offering(self) -> bool:
        """Whether an offer of ours waits for its answer."""
        return bool(self._updates)

    def behind(self, dialog: Dialog | None) -> bool:
        """Whether this far end still knows another path than the one the session uses."""
        tag = dialog.remote_tag if dialog is not None else ""
        return self._told.get(tag, self._known) is not self._session.path

    def tell(self, now: float) -> None:
        """UPDATE every dialog that is behind and takes one."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        session, media = self._session, self._session.media
        if session.live or session.status is Status.TERMINATED or media is None or not session.path.on:
            return
        for request, (_, path) in list(self._updates.items()):
            if path is not session.path:  # it has died as well
                request.abandon()
                del self._updates[request]
        asked = [dialog for dialog, _ in self._updates.values()]
        for dialog in list(session.dialogs.values()):
            if dialog.updatable and self.behind(dialog) and dialog not in asked:
                if media.offering:
                    self._later(now)
                    return
                self._node.calls.locate_dialog(dialog, partial(self._update, dialog), now)

    def heard(self, response: Response, now: float) -> None:
        """The other side has answered the INVITE, for the time being or for good."""

    def cancel(self, now: float) -> bool:
        """The caller gives up; whether this has been seen to."""
        return False

    def stop(self, now: float) -> None:
        """The call is answered, or over."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        for request in list(self._updates):
            request.abandon()
        self._updates.clear()
        self._node.in_dialog.release_held(self._session, now)

    # ------------------------------------------------------------------------------------------------- internals

    def _update(self, dialog: Dialog, targets: list[Target], now: float) -> None:
        path = self._session.path
        flow = next((flow for flow in map(path.flow_to, targets) if flow is not None), None)
        if flow is not None:
            request = self._offer("UPDATE", dialog, path, flow)
            self._updates[request] = (dialog, path)
            request.send(flow, now)

    def _offer(self, method: str, dialog: Dialog, path: Path, flow: Flow) -> SignedRequest:
        """The SIP-MN's description, received at this path."""
        session = self._session
        body = session.media.again(path.media_host) if session.media is not None else ""
        lines = [f"Contact: <{path.contact(flow.local.transport, f';mn={session.token}')}>", f"Allow: {ALLOW}"]
        if body:
            lines.append("Content-Type: application/sdp")
        remote = f"{session.to_value};tag={dialog.remote_tag}" if session.outgoing else ""
        return SignedRequest(self._node, self, session, dialog, method, tuple(lines), body, remote=remote)

    def on_answer(self, request: SignedRequest, response: Response, now: float) -> None:
        """The far end has answered an UPDATE."""
        status = response.status
        if status < 200:
            return
        dialog, path = self._updates.pop(request, (None, None))
        if dialog is None or path is None:
            return
        if status < 300:
            self._tries = 0
            self._told[dialog.remote_tag] = path
            self._take_in(response)
        elif status in (491, 500, 504):
            self._later(now)
        self._node.in_dialog.release_held(self._session, now)
        if status < 300:
            self.tell(now)  # another path may have come into use meanwhile

    def on_silence(self, request: SignedRequest, status: int, now: float) -> None:
        """No answer: the re-INVITE after the answer will tell."""
        self._updates.pop(request, None)
        self._node.in_dialog.release_held(self._session, now)

    def _take_in(self, response: Response) -> None:
        session = self._session
        span = body_sdp(response)
        if span is not None and session.media is not None:
            try:
                session.media.answered_again(response.body[span[0] : span[1]])
            except SdpError as error:
                self._node.log("warning", "answer to our UPDATE is unusable", session.call_id, why=str(error))
            self._node.calls.apply_media(session)

    def _later(self, now: float) -> None:
        self._tries += 1
        if self._tries <= TRIES and self._telling is None:
            self._telling = self._node.timers.set(now + TELL_AGAIN, self.tell)
