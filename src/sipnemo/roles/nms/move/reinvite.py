"""One call's move: a re-INVITE from the new path, and every answer it can get (RO-10, R2, R4, R5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.nms.call.media import body_sdp
from sipnemo.roles.nms.call.session import ACK_WITHIN
from sipnemo.roles.nms.move.checking import Checking
from sipnemo.roles.nms.move.lane import retry_after
from sipnemo.roles.nms.move.outcome import Outcome, Reason, reason_of
from sipnemo.roles.nms.move.reoffer import Reoffer
from sipnemo.roles.nms.path.reach import candidates, serves_media
from sipnemo.sdp.description import SdpError
from sipnemo.sip.message import Response
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.move.handover import Handover
    from sipnemo.roles.nms.move.move_log import MoveRecord, Wave
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path


class Move:
    """From one path to another, for one live call."""

    __slots__ = (
        "_handover",
        "_left",
        "_node",
        "_refused",
        "_request",
        "_timer",
        "_tries",
        "_vacated",
        "answered_after",
        "asleep",
        "checking",
        "lost_at",
        "named",
        "over",
        "path",
        "planned",
        "record",
        "session",
        "silent_for",
        "unfit",
        "waiting_for_path",
        "waiting_for_turn",
        "wave",
    )

    def __init__(self, handover: Handover, node: MobilityServer, session: Session, wave: Wave) -> None:
        self._handover = handover
        self._node = node
        self.session = session
        self.wave = wave
        self.path: Path | None = None
        "Where it moves to."
        self.record: MoveRecord | None = None
        "What has been written down of it: while it is put off, and at its end."
        self.over = False
        self.waiting_for_path = False
        self.waiting_for_turn = False
        "Another INVITE of this session is at hand (RFC 3261 §14.1)."
        self.asleep = False
        "The SIP-CN wants credentials that only the SIP-MN has: its next request tells the SIP-CN the new path (R4)."
        self.named: Path | None = None
        "What a 2xx of the SIP-MN's that awaits its ACK tells the SIP-CN."
        self.answered_after: float | None = None
        self.lost_at = wave.began_at
        "When the path that is left was found to be lost; of one that still works, when it was to be left."
        self.silent_for = wave.silent_for
        "Seconds for which it had been silent by then."
        self._request: Reoffer | None = None
        "The re-INVITE at hand."
        self._timer: Timer | None = None
        self._tries = 0
        self._vacated: dict[str, None] = {}
        "Addresses of ours that the call has left."
        self._refused: set[Path] = set()
        "Paths on which nothing was answered, or nothing heard."
        self.unfit: set[bool] = set()
        "Address families (True: IPv6) that the far end's media do not have."
        self._left: Path | None = None
        "The path that its packets have left."
        self.planned = wave.planned
        "The path that is left still works."
        self.checking = Checking(self, node)

    # ------------------------------------------------------------------------------------------------- sending

    def start(self, now: float) -> None:
        """Choose a path and send the re-INVITE, or wait for what is missing."""
        if self.over:
            return
        self._quiet()
        self.asleep = False
        session = self.session
        ranked = candidates(self._node, self)
        choice = self.checking.final if self.checking.final in ranked else self.untried(ranked)
        if choice is None and self.checking.agreed:
            self.checking.go_back(now)
            return
        if choice is None and ranked:
            self._refused.clear()  # every path has been tried: begin again, more slowly
            self._retry(2.0, now)
            return
        self.waiting_for_path = choice is None
        if choice is None or not self._handover.pacing.admits(self, choice, now):
            return
        self._node.doubling.begin(session, choice, now)
        if not self._keeps or choice.natted:  # where a NAT hides us, far ends send to where our media come from
            self._take(choice)
        self.path = choice
        if not session.acknowledged and session.answered_at is not None:  # the ACK of the first INVITE is on its way
            session.ack_awaited_until = max(session.ack_awaited_until, session.answered_at + ACK_WITHIN)
        awaited = session.ack_awaited_until > now
        self.waiting_for_turn = session.pending is not None or session.ending or awaited
        if self.waiting_for_turn:
            if awaited:
                self._retry(session.ack_awaited_until - now, now)
            return
        self._handover.watch(self, now)
        assert session.dialog is not None
        self._node.calls.locate_dialog(session.dialog, self._located, now)

    @property
    def _keeps(self) -> bool:
        """Whether the session's present path is good until the SIP-CN has agreed to another."""
        path = self.session.path
        return path.works and (self.planned or path in self.checking.agreed)

    @property
    def inviting(self) -> bool:
        """Whether the SIP-CN has a request of ours that it has not answered."""
        return self._request is not None

    def resume(self, now: float) -> None:
        """A path is ON again, or the session's other INVITE has ended."""
        if self.waiting_for_path or self.waiting_for_turn:
            self.start(now)

    def _located(self, targets: list[Target], now: float) -> None:
        path, session = self.path, self.session
        flow = next((flow for flow in map(path.flow_to, targets) if flow is not None), None) if path else None
        if path is None or flow is None or self.over:
            self._unanswered(Reason.UNREACHABLE, now)
            return
        if session.pending is not None:  # it came while DNS was asked
            self.waiting_for_turn = True
            return
        assert session.dialog is not None
        if path is not session.path:
            self._node.pinholes.open(session, path)
        self._tries += 1
        self.wave.invites += 1
        if session.unheard or (self._tries == 1 and not self.wave.planned):
            self._node.merging.settle(session, session.dialog, flow, now)
        self._request = Reoffer(self._node, self, session, path, flow, self._handover.pacing.lane(path, now))
        self._request.send(flow, now)

    def _take(self, path: Path) -> None:
        """Make this the session's path: its packets leave there from now on."""
        session = self.session
        if session.path is not path:
            self._left = self._left or session.path
            self._vacated[session.path.address] = None
            self._node.calls.put_on(session, path)
            self.checking.seen.path_taken()

    # ------------------------------------------------------------------------------------------------- answers

    def on_answer(self, request: Reoffer, response: Response, now: float) -> None:
        """The SIP-CN, or a proxy on the way, has answered for good."""
        status = response.status
        if request is not self._request:
            return
        self._request = None
        self.wave.invites += request.challenges
        self._quiet()
        if status < 300:
            self._accepted(response, now)
            self._node.in_dialog.release_held(self.session, now)
            return
        self._node.in_dialog.release_held(self.session, now)
        if self.session.ending:  # what it refuses may just be what follows a BYE
            self.waiting_for_turn = True
            return
        why = f"{status} {response.reason}"
        match status:
            case 491:
                # Whoever made the Call-ID waits longer, so that the two ends do not meet again (§14.1).
                chance = self._node.ids.chance()
                self._retry(2.1 + 1.9 * chance if self.session.outgoing else 2.0 * chance, now)
            case 481:
                self.end(Outcome.FAILED, Reason.NO_CALL, now, why)
                self._node.own_requests.hang_up_inside(self.session, "the far end has ended the call", now)
            case 401 | 407:
                if request.challenges:
                    self._give_up(Reason.CHALLENGED, now, f"{why}: the [[trunk]] credentials are refused")
                else:
                    self._sleep(why, now)
            case 408 | 487 | 500 | 502 | 503 | 504:
                self._retry(retry_after(response) or 0.5 * 2.0 ** min(self._tries, 5), now, reason_of(status), why)
            case 422 if self._node.session_timers.too_small(self.session, response):
                self._retry(0.0, now, reason_of(status), why)
            case _ if self._unfit():
                self.start(now)
            case _:
                self._give_up(reason_of(status), now, why)

    def on_silence(self, request: Reoffer, status: int, now: float) -> None:
        """Nothing came, or nothing could be sent."""
        if request is self._request and not self.over:
            self._request = None
            self._node.in_dialog.release_held(self.session, now)
            self._unanswered(Reason.NO_ANSWER if status == 408 else Reason.UNREACHABLE, now)

    def hurry(self, now: float) -> None:
        """An offer of the SIP-MN waits for the answer to ours."""
        if self._request is not None:
            self._request.hurry(now)

    def _sleep(self, why: str, now: float) -> None:
        """The challenge is for the SIP-MN: wait for a request of its own, which it can sign."""
        assert self.path is not None
        self.asleep = True
        if not self.session.path.works:
            self._take(self.path)
        self._handover.put_off(self, f"{why}; waits for a request of the phone's own", now)

    def carried(self, path: Path, now: float) -> None:
        """The SIP-CN knows this path by an exchange of the two ends: no re-INVITE of ours is needed any more."""
        if self.over or self._request is not None or not path.on:
            return
        if path is self.session.path and path is not self.path:
            return  # that is the path to be left
        self.path = path
        self._quiet()
        self._handover.pacing.forget(self)
        self.waiting_for_path = self.waiting_for_turn = self.asleep = False
        self._handover.watch(self, now)
        if self.session.media is not None:
            self.checking.seen.answered(self.session.media.mn_sdp, mirrored=True)
        self._answered(now)

    def _unanswered(self, reason: Reason, now: float) -> None:
        """This path brings no answer: the next one, or this one again when it is the only one."""
        if self.over:
            return
        if self.path is not None:
            self._refused.add(self.path)
        if self._tries >= self._node.settings.move.tries * max(1, len(self._node.paths.on())):
            self._give_up(reason, now)
        else:
            others = len(self._refused) < len(self._node.paths.on())
            self._retry(0.0 if others or self.checking.nothing_left else 1.0, now)

    def _retry(self, after: float, now: float, reason: Reason = Reason.NONE, why: str = "") -> None:
        if reason and self._tries >= self._node.settings.move.tries:
            self._give_up(reason, now, why)
            return
        self.put_off(after, now)

    def _accepted(self, response: Response, now: float) -> None:
        session = self.session
        assert self.path is not None
        self._node.session_timers.moved(session, response, now)
        span = body_sdp(response)
        if span is not None and session.media is not None:
            answer = response.body[span[0] : span[1]]
            self.checking.seen.answered(answer)
            try:
                session.media.answered_again(answer)
            except SdpError as error:
                self._node.log("warning", "answer to our re-INVITE is unusable", session.call_id, why=str(error))
        if session.ack_awaited_until:
            self._node.merging.acknowledge_inside(session, response, now)
        self._answered(now)

    def _answered(self, now: float) -> None:
        """The SIP-CN knows the new path."""
        assert self.path is not None
        self._node.calls.apply_media(self.session)
        if self._unfit():
            self.start(now)
            return
        self._take(self.path)
        self.answered_after = now - self.wave.began_at
        self.checking.begin(self.path, now)

    def _unfit(self) -> bool:
        """Whether the far end's answer shows that it has no media address of this path's family (R9)."""
        if self.path is None or serves_media(self.session, self.path):
            return False
        self.unfit.add(self.path.ipv6)
        return True

    def refuse(self, path: Path) -> None:
        """This path is no good for this call."""
        self._refused.add(path)

    def untried(self, paths: list[Path]) -> Path | None:
        """The first of these that has not been tried in vain."""
        return next((path for path in paths if path not in self._refused), None)

    # -------------------------------------------------------------------------------------------------- the end

    def hasten(self, silent_for: float, now: float) -> None:
        """The path that was to be left in peace has died: from now on this is a move like any other."""
        self.planned = False
        self.lost_at, self.silent_for = now, silent_for
        if self.path is not None and not self.session.path.works:
            self._take(self.path)

    def aim_lost(self, now: float) -> None:
        """The path it moves to has failed before the SIP-CN has agreed to it: another is tried at once."""
        self._abandon()
        if self.path is not None:
            self._refused.add(self.path)
        self._node.in_dialog.release_held(self.session, now)
        self.start(now)

    def overtaken(self, now: float) -> None:
        """The new path has failed as well: another move begins."""
        self.end(Outcome.OVERTAKEN, Reason.NONE, now)

    def end(self, outcome: Outcome, reason: Reason, now: float, detail: str = "") -> None:
        """Write it down, and let the session's own INVITEs through again."""
        if self.over:
            return
        self.over = True
        self._quiet()
        self._abandon()
        if self.session.move is self:
            self.session.move = None
        self._node.in_dialog.release_held(self.session, now)
        if outcome is not Outcome.VERIFIED:
            self._node.log("info", "move ended", self.session.call_id, outcome=outcome, reason=reason, detail=detail)
        if outcome in (Outcome.VERIFIED, Outcome.UNVERIFIED):
            self.session.moves += 1
        if outcome is not Outcome.HUNG_UP:
            for address in self._vacated:
                self._node.settling.leave(self.session, address, now)
            if not self._vacated:
                self._node.doubling.end(self.session)
        self._handover.moved(self, outcome, reason, now, detail)

    def _give_up(self, reason: Reason, now: float, detail: str = "") -> None:
        """The far end does not follow. The call stays: it may hear us, and a path may come back."""
        if self.checking.agreed:  # it has followed before
            self.end(Outcome.UNVERIFIED, Reason.NOT_HEARD, now)
            return
        if self._left is not None and self._left.works:
            self._take(self._left)
        elif self.path is not None and not self.session.path.works:
            self._take(self.path)
        self.end(Outcome.FAILED, reason, now, detail)

    def _abandon(self) -> None:
        if self._request is not None:
            self._request.abandon()
            self._request = None

    def put_off(self, after: float, now: float) -> None:
        """Start it again later."""
        self._quiet()
        self._timer = self._node.timers.set(now + after, self.start)

    def _quiet(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.checking.stop()
