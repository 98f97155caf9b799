"""One call: the dialog, its media and its end. How it begins is told in `inviting.py` and `invited.py`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from sipnemo.roles.phone import changes, transfer
from sipnemo.roles.phone.dialog import Dialog
from sipnemo.roles.phone.media import CloseStream, OpenStream, SetStream, StreamOpened
from sipnemo.roles.phone.outgoing import Heard, Outgoing
from sipnemo.roles.phone.session import DISCARD_PORT, MediaSession
from sipnemo.roles.phone.session_timer import SessionTimer
from sipnemo.sip.errors import SipError
from sipnemo.sip.message import Request, Response
from sipnemo.sip.timers import T1, T2, TIMEOUT, Timer
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.phone.invited import Invited
    from sipnemo.roles.phone.inviting import Inviting
    from sipnemo.roles.phone.node import Phone, User


class State(Enum):
    """Where a call stands."""

    SETUP = "setup"
    ACTIVE = "active"
    ENDED = "ended"


class Call:
    """A call between one of our users and one far end."""

    def __init__(self, phone: Phone, user: User, call_id: str, local_tag: str, peer: str, ours: bool) -> None:
        self.phone = phone
        self.user = user
        self.call_id = call_id
        self.local_tag = local_tag
        self.peer = peer
        "The far end's URI."
        self.ours = ours
        "Whether we called."
        self.state = State.SETUP
        self.setup: Inviting | Invited | None = None
        self.dialog: Dialog | None = None
        self.media: MediaSession | None = None
        self.timer = SessionTimer(self, phone.settings.session_expires)
        self.change: changes.Change | None = None
        "Our re-INVITE under way."
        self.unacknowledged: Repeats | None = None
        "Our 2xx to an INVITE, repeated until its ACK comes."
        self.on_progress: Callable[[int, str, float], None] | None = None
        "Who wants to know how the set-up goes: the REFER that asked for this call."
        self._stream = 0
        self._last_rtp: tuple[str, int] | None = None
        self._bye_waits = ""
        self._hang_up_timer: Timer | None = None

    # ---------------------------------------------------------------------------------------------------- media

    def open_media(self, then: Callable[[float], None], now: float) -> None:
        """Get a port and a session to describe; `then` may come at once. Without a free port `media` stays None."""
        phone = self.phone
        host = phone.media_host
        if not phone.settings.media:
            self.media = MediaSession(host, DISCARD_PORT, phone.session_id(), mux=False)
            then(now)
            return

        def opened(answer: StreamOpened, at: float) -> None:
            if answer.port:
                self.media = MediaSession(host, answer.port, phone.session_id(), phone.settings.rtcp_mux)
            if self.state is State.ENDED:
                self._close_media()
            else:
                then(at)

        self._stream = phone.next_stream()
        phone.ask(OpenStream(phone.ticket(opened), self._stream, host, self.user.account.name, self.call_id))

    def apply_media(self) -> None:
        """Let RTP follow what was negotiated, at once."""
        media = self.media
        if media is None or media.remote is None or self.state is State.ENDED:
            return
        remote = media.remote
        if self._stream:
            peer = remote.rtp if media.sends else None
            rtcp = None if remote.held else remote.rtcp
            self.phone.ask(SetStream(self._stream, peer, rtcp, remote.payload_type, media.expects))
        if remote.held:
            return
        before, self._last_rtp = self._last_rtp, remote.rtp
        if before is not None and before != remote.rtp:
            self.notify("moved", media=_endpoint(remote.rtp), before=_endpoint(before))

    def _close_media(self) -> None:
        if self._stream:
            self.phone.ask(CloseStream(self._stream))
            self._stream = 0

    # ------------------------------------------------------------------------------------------- life and its end

    def established(self, dialog: Dialog, now: float) -> None:
        """A 2xx was sent or received."""
        self.state = State.ACTIVE
        self.dialog = dialog
        self.setup = None
        body = {"media": _endpoint(self._last_rtp)} if self._last_rtp else {}
        self.notify("answered", **body)
        if self.on_progress is not None:
            self.on_progress(200, "OK", now)
        if self.phone.settings.duration > 0:
            self._hang_up_timer = self.phone.timers.set(now + self.phone.settings.duration, self.hang_up)

    def hang_up(self, now: float, status: int = 603) -> None:
        """End the call in good order: BYE, CANCEL, or a refusal with this status."""
        match self.state:
            case State.ACTIVE if self.unacknowledged is not None:
                self._bye_waits = "hung up"  # the callee may not send BYE before the ACK (RFC 3261 §15)
            case State.ACTIVE:
                self._bye(now)
                self.end("hung up", "us", now)
            case State.SETUP if self.setup is not None:
                self.setup.give_up(status, now)
            case _:
                pass

    def lose(self, reason: str, now: float) -> None:
        """The far end cannot be reached, or no longer knows the call: say BYE all the same, and end it."""
        if self.state is State.ACTIVE:
            self._bye(now)
        self.end(reason, "failure", now, failed=True)

    def end(self, reason: str, by: str, now: float, *, failed: bool = False) -> None:
        """Nothing is left of the call but the report."""
        if self.state is State.ENDED:
            return
        answered = self.state is State.ACTIVE
        self.state = State.ENDED
        if self.change is not None:
            self.change.stop()
        if self.unacknowledged is not None:
            self.unacknowledged.stop()
        if self._hang_up_timer is not None:
            self._hang_up_timer.cancel()
        self.timer.stop()
        self.notify("ended", reason=reason, by=by, outgoing=self.ours, answered=answered, failed=failed)
        self._close_media()
        self.phone.forget(self, now)

    def notify(self, event: str, **fields: object) -> None:
        """Tell the world about this call."""
        self.phone.notify(event, self.user, call_id=self.call_id, peer=self.peer, **fields)

    def _bye(self, now: float) -> None:
        if self.dialog is not None:
            self.phone.say_goodbye(self.user, self.dialog, now)

    # ----------------------------------------------------------------------------------------- requests of ours

    def send(self, method: str, now: float, on_final: Heard, request: Request | None = None) -> Outgoing:
        """Send a request in the dialog (not INVITE, whose 2xx needs an ACK)."""
        assert self.dialog is not None
        if request is None:
            request = self.dialog.request(method, self.dialog.next_cseq())
        outgoing = Outgoing(self.phone, self.user, request, self.dialog.next_cseq, on_final)
        outgoing.send(now)
        return outgoing

    def refresh(self, now: float) -> None:
        """Refresh the session timer: by UPDATE where the far end takes it (RFC 4028 §7.4)."""
        if self.dialog is not None and "UPDATE" in self.dialog.allows:
            request = self.dialog.request("UPDATE", self.dialog.next_cseq())
            self.timer.ask(request)
            request.set("supported", self.phone.supported)
            self.send("UPDATE", now, self._refreshed, request)
        else:
            self.alter(None, now)

    def _refreshed(self, response: Response, now: float) -> None:
        if self.state is not State.ACTIVE:
            return
        if response.status < 300:
            self.timer.agreed(response, now)
        elif response.status in (408, 481):
            self.lose(f"{response.status} {response.reason}", now)
        else:
            self.alter(None, now)

    def alter(self, hold: bool | None, now: float) -> None:
        """Send a re-INVITE: hold, resume, or (None) the session as it is."""
        if self.state is State.ACTIVE and self.change is None:
            self.change = changes.Change(self, hold)
            self.change.start(now)
        elif self.state is State.ACTIVE:
            self.phone.timers.set(now + 0.2, lambda at: self.alter(hold, at))  # one after the other (§14.1)

    def refer(self, uri: str, now: float) -> None:
        """Ask the far end to call somebody else (RFC 3515)."""
        transfer.refer(self, uri, now)

    # ------------------------------------------------------------------------------------ requests of the far end

    def receive(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A request in this call's dialog; SipError is its answer."""
        dialog = self._dialog_of(request)
        if not dialog.in_order(request):
            raise SipError(500, "CSeq Out of Order")
        match request.method:
            case "BYE":
                self.phone.respond(server, 200, now)
                if self.setup is not None:
                    self.setup.ended_by_bye(now)
                self.end("BYE", "them", now)
            case "INVITE":
                changes.answer_invite(self, dialog, server, request, now)
            case "UPDATE":
                changes.answer_update(self, dialog, server, request, now)
            case "PRACK" if self.setup is not None:
                self.setup.receive_prack(server, request, now)
            case "REFER":
                transfer.receive_refer(self, server, request, now)
            case "NOTIFY":
                transfer.receive_notify(self, server, request, now)
            case "INFO" | "OPTIONS" | "MESSAGE":
                self.phone.respond(server, 200, now, headers=self.phone.abilities)
            case "PRACK":
                raise SipError(481)
            case _:
                raise SipError(405, headers=self.phone.abilities)

    def receive_ack(self, request: Request, now: float) -> None:
        """The ACK of a 2xx of ours."""
        repeats = self.unacknowledged
        if repeats is None or request.cseq != repeats.cseq:
            return
        repeats.stop()
        self.unacknowledged = None
        if self.media is not None and self.media.offered:
            try:
                self.media.accept(self.phone.description_in(request))
            except SipError:
                self.lose("the ACK brought no usable answer", now)
                return
            self.apply_media()
        if self._bye_waits:
            self.hang_up(now)

    def _dialog_of(self, request: Request) -> Dialog:
        if self.dialog is not None and self.dialog.remote_tag == request.from_tag:
            return self.dialog
        if self.dialog is None and self.setup is not None:
            early = self.setup.dialogs.get(request.from_tag)
            if early is not None:
                return early
        raise SipError(481)

    def repeat_until_acknowledged(self, server: ServerTransaction, data: bytes, now: float) -> None:
        """Send our 2xx to an INVITE again and again until its ACK comes (RFC 3261 §13.3.1.4)."""
        if self.unacknowledged is not None:
            self.unacknowledged.stop()
        self.unacknowledged = Repeats(self, server, data, now)

    def never_acknowledged(self, now: float) -> None:
        """64*T1 have passed since our 2xx."""
        self.unacknowledged = None
        self.lose("no ACK", now)


class Repeats:
    """A 2xx to an INVITE, sent end to end until it is acknowledged."""

    def __init__(self, call: Call, server: ServerTransaction, data: bytes, now: float) -> None:
        self.cseq = server.request.cseq
        self._call = call
        self._server = server
        self._data = data
        self._interval = T1
        self._until = now + TIMEOUT
        self._timer: Timer | None = call.phone.timers.set(now + T1, self._repeat)

    def stop(self) -> None:
        """The ACK is here, or nobody waits for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _repeat(self, now: float) -> None:
        if now >= self._until - 1e-6:
            self._timer = None
            self._call.never_acknowledged(now)
            return
        self._server.respond(200, self._data, now)
        self._interval = min(self._interval * 2, T2)
        self._timer = self._call.phone.timers.set(min(now + self._interval, self._until), self._repeat)


def _endpoint(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
