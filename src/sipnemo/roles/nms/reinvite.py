"""One call's move: a re-INVITE from the new path, and every answer it can get (RO-10, R2, R4, R5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sipnemo.media.flow import INSIDE, FlowKey
from sipnemo.roles.nms.media import body_sdp
from sipnemo.roles.nms.pacing import retry_after
from sipnemo.roles.nms.reach import candidates, serves_media
from sipnemo.roles.nms.signed import SignedRequest
from sipnemo.roles.node import Counted, ReadCounters
from sipnemo.sdp.description import SdpError
from sipnemo.sip.message import Response
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.handover import Handover
    from sipnemo.roles.nms.move_log import MoveRecord, Wave
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.paths import Path
    from sipnemo.roles.nms.session import Session

ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, INFO, REFER, NOTIFY, SUBSCRIBE, MESSAGE"
ANSWER_WITHIN = 4.0
"Seconds without any answer after which a re-INVITE is sent anew (Timer B would take 32)."
PATIENCE = 16.0
"Seconds for which a SIP-CN may say that it is working on it."


class Move:
    """From one path to another, for one live call."""

    __slots__ = (
        "_baseline",
        "_handover",
        "_node",
        "_patient",
        "_refused",
        "_request",
        "_timer",
        "_tries",
        "answered_after",
        "asleep",
        "gap_down",
        "named",
        "over",
        "path",
        "record",
        "session",
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
        self.gap_down: float | None = None
        self._request: SignedRequest | None = None
        "The re-INVITE at hand."
        self._patient = False
        "It has had a provisional response."
        self._timer: Timer | None = None
        self._tries = 0
        self._refused: set[Path] = set()
        "Paths on which nothing was answered."
        self.unfit: set[bool] = set()
        "Address families (True: IPv6) that the far end's media do not have."
        self._baseline: dict[FlowKey, int] | None = None

    # ------------------------------------------------------------------------------------------------- sending

    def start(self, now: float) -> None:
        """Choose a path and send the re-INVITE, or wait for what is missing."""
        if self.over:
            return
        self._quiet()
        self.asleep = False
        session = self.session
        ranked = candidates(self._node, self)
        choice = next((path for path in ranked if path not in self._refused), None)
        if choice is None and ranked:
            self._refused.clear()  # every path has been tried: begin again, more slowly
            self._retry(2.0, now)
            return
        self.waiting_for_path = choice is None
        if choice is None or not self._handover.pacing.admits(self, choice, now):
            return
        if not self.wave.planned or not session.path.on:
            self._take(choice)
        self.path = choice
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
            self._unanswered("the far end cannot be reached over this path", now)
            return
        if session.pending is not None:  # it came while DNS was asked
            self.waiting_for_turn = True
            return
        dialog = session.dialog
        assert dialog is not None
        if path is not session.path:
            self._node.pinholes.open(session, path)
        self._tries += 1
        self.wave.invites += 1
        if session.unheard or (self._tries == 1 and not self.wave.planned):
            self._node.merging.settle(session, dialog, flow, now)
        method = "INVITE" if session.media is not None and session.media.mn_sdp else "UPDATE"
        body = session.media.again(path.media_host) if method == "INVITE" and session.media is not None else ""
        lines = [f"Contact: <{path.contact(flow.local.transport, f';mn={session.token}')}>", f"Allow: {ALLOW}"]
        if session.expires:
            lines += ["Supported: timer", f"Session-Expires: {session.expires}"]  # a move is a refresh (R18)
        if body:
            lines.append("Content-Type: application/sdp")
        lane = self._handover.pacing.lane(path, now)
        self._patient = False
        self._request = SignedRequest(self._node, self, session, dialog, method, tuple(lines), body, lane)
        self._request.send(flow, now)
        self._timer = self._node.timers.set(now + ANSWER_WITHIN, self._silent)

    def _take(self, path: Path) -> None:
        """Make this the session's path: its packets leave there from now on."""
        session = self.session
        if session.path is not path:
            session.path.sessions.pop(session, None)
            session.path = path
            path.sessions[session] = None
            self._node.calls.apply_media(session)
            self._node.prober_hurry(path)

    # ------------------------------------------------------------------------------------------------- answers

    def on_answer(self, request: SignedRequest, response: Response, now: float) -> None:
        """The SIP-CN, or a proxy on the way, has answered."""
        status = response.status
        if request is not self._request:
            return
        if status < 200:
            # The path works, the SIP-CN takes its time; but an offer of the SIP-MN's shall not wait for that.
            self._quiet()
            self._timer = self._node.timers.set(now + PATIENCE, self._impatient)
            self._patient = True
            if self.session.held:
                self.hurry(now)
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
                self.end("failed", why, now)
                self._node.own_requests.hang_up_inside(self.session, "the far end has ended the call", now)
            case 401 | 407:
                if request.challenges:
                    self._give_up(f"{why}: the [[trunk]] credentials are refused", now)
                else:
                    self._sleep(why, now)
            case 408 | 487 | 500 | 502 | 503 | 504:
                self._retry(retry_after(response) or 0.5 * 2.0 ** min(self._tries, 5), now, why)
            case _ if self._unfit():
                self.start(now)
            case _:
                self._give_up(why, now)

    def on_silence(self, request: SignedRequest, status: int, now: float) -> None:
        """Nothing came, or nothing could be sent."""
        if request is self._request and not self.over:
            self._request = None
            self._node.in_dialog.release_held(self.session, now)
            self._unanswered("no answer" if status == 408 else "unreachable", now)

    def hurry(self, now: float) -> None:
        """An offer of the SIP-MN waits for the answer to ours."""
        if self._patient:
            self._patient = False
            self._quiet()
            self._timer = self._node.timers.set(now + ANSWER_WITHIN, self._impatient)

    def _impatient(self, now: float) -> None:
        """An answer is on its way that does not come: take the offer back (RFC 6141 §3.4), and hear what comes."""
        assert self._request is not None
        self._patient = False
        self._request.cancel(now)
        self._timer = self._node.timers.set(now + ANSWER_WITHIN, self._silent)

    def _sleep(self, why: str, now: float) -> None:
        """The challenge is for the SIP-MN: wait for a request of its own, which it can sign."""
        assert self.path is not None
        self.asleep = True
        if not self.session.path.on:
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
        self.waiting_for_path = self.waiting_for_turn = self.asleep = False
        self._handover.watch(self, now)
        self._answered(now)

    def _silent(self, now: float) -> None:
        if self._request is not None:
            self._request.cancel(now)
        self._abandon()
        self._node.in_dialog.release_held(self.session, now)
        self._unanswered("no answer", now)

    def _unanswered(self, why: str, now: float) -> None:
        """This path brings no answer: the next one, or this one again when it is the only one."""
        if self.over:
            return
        if self.path is not None:
            self._refused.add(self.path)
        if self._tries >= self._node.settings.move.tries * max(1, len(self._node.paths.on())):
            self._give_up(why, now)
        else:
            self._retry(0.0 if len(self._refused) < len(self._node.paths.on()) else 1.0, now)

    def _retry(self, after: float, now: float, why: str = "") -> None:
        if why and self._tries >= self._node.settings.move.tries:
            self._give_up(why, now)
            return
        self.put_off(after, now)

    def _accepted(self, response: Response, now: float) -> None:
        session = self.session
        assert self.path is not None
        session.refreshed(now)
        span = body_sdp(response)
        if span is not None and session.media is not None:
            try:
                session.media.answered_again(response.body[span[0] : span[1]])
            except SdpError as error:
                self._node.log("warning", "answer to our re-INVITE is unusable", session.call_id, why=str(error))
        if session.ack_awaited_until:
            self._node.merging.acknowledge_inside(session, response, now)
        self._answered(now)

    def _answered(self, now: float) -> None:
        """The SIP-CN knows the new path."""
        assert self.path is not None
        self._take(self.path)
        self._node.calls.apply_media(self.session)
        if self._unfit():
            self.start(now)
            return
        self.answered_after = now - self.wave.began_at
        if not self.keys_down():
            self.end("unverified", "no media expected", now)
        elif self.gap_down is not None:
            self.end("verified", "", now)
        else:
            self._timer = self._node.timers.set(now + self._node.settings.move.verify_after, self._unverified)

    def _unfit(self) -> bool:
        """Whether the far end's answer shows that it has no media address of this path's family (R9)."""
        if self.path is None or serves_media(self.session, self.path):
            return False
        self.unfit.add(self.path.ipv6)
        return True

    # --------------------------------------------------------------------------------------------- verification

    def keys_down(self) -> list[FlowKey]:
        """The flows by which the SIP-CN's RTP arrives over the new path."""
        media, path = self.session.media, self.path
        if media is None or path is None:
            return []
        return [key for key, flow in media.flows.items() if key.host == path.address and flow.group == INSIDE]

    def counted(self, counters: Mapping[FlowKey, tuple[int, int]], now: float) -> None:
        """A reading of the counters: has anything arrived on the new path (R7)?"""
        packets = {key: counters.get(key, (0, 0))[0] for key in self.keys_down()}
        if self._baseline is None or self._baseline.keys() != packets.keys():
            self._baseline = packets
        elif self.gap_down is None and any(packets[key] > self._baseline[key] for key in packets):
            self.gap_down = now - self.wave.began_at
            if self.answered_after is not None:
                self.end("verified", "", now)

    def _unverified(self, now: float) -> None:
        """Nothing is heard on this path: a NAT or filter there may swallow it, so the next is tried, each once (R7).

        Only for a SIP-CN that has been heard in this call: who never spoke may be silent on every path.
        """
        media, path = self.session.media, self.path
        if path is not None:
            self._refused.add(path)
        if media is None or all(other in self._refused for other in self._node.ranked(self.session)):
            self.end("unverified", "no media from the far end", now)
            return

        def counted(answer: Counted, at: float) -> None:
            if self.over or self._request is not None or self.path is not path:
                return
            if any(packets for packets, _ in answer.counters.values()):
                self.start(at)
            else:
                self.end("unverified", "no media from the far end", at)

        keys = tuple(key for key, flow in media.flows.items() if flow.group == INSIDE)
        self._node.act(ReadCounters(self._node.ticket(counted), keys))

    # -------------------------------------------------------------------------------------------------- the end

    def overtaken(self, now: float) -> None:
        """The new path has failed as well: another move begins."""
        self.end("overtaken", "", now)

    def end(self, outcome: str, reason: str, now: float) -> None:
        """Write it down, and let the session's own INVITEs through again."""
        if self.over:
            return
        self.over = True
        self._quiet()
        self._abandon()
        if self.session.move is self:
            self.session.move = None
        self._node.in_dialog.release_held(self.session, now)
        if outcome != "verified":
            self._node.log("info", "move ended", self.session.call_id, outcome=outcome, reason=reason)
        if outcome in ("verified", "unverified"):
            self.session.moves += 1
        self._handover.moved(self, outcome, reason, now)

    def _give_up(self, why: str, now: float) -> None:
        """The far end does not follow. The call stays: it may hear us, and a path may come back."""
        if self.path is not None and not self.session.path.on:
            self._take(self.path)
        self.end("failed", why, now)

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
