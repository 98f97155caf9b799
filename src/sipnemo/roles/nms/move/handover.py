"""A path is OFF, or to be left: its calls move to another (RO-10, MH-12).

Unplanned: one write moves the uplink direction of every call of the path (the media plane's group); then every call
is re-INVITEd from its new path, in the order of `order.py` and at the pace of `pacing.py`. Planned: the path still
works, so each call keeps it until the SIP-CN has answered the re-INVITE from the new one; nothing is lost.

A move ends verified (media seen on the new path), unverified with a reason, or failed with a reason. It never ends
a call: only the SIP-CN's own 481 says that there is none any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from sipnemo.media.flow import FlowKey, MediaPath
from sipnemo.nemo.session_list import SessionStatus
from sipnemo.roles.nms.move.move_log import MoveRecord, Wave
from sipnemo.roles.nms.move.order import rank
from sipnemo.roles.nms.move.outcome import Outcome, Reason
from sipnemo.roles.nms.move.pacing import Pacing
from sipnemo.roles.nms.move.reinvite import Move
from sipnemo.roles.node import Count, Counted, Notice, Observe, ReadCounters, SetPath
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.call.session import Session
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

WATCH_EVERY = 0.02
"Seconds between readings of the counters while moves wait for their media."
WATCHED = 200
"Calls whose media are watched closely at a time; reading counters costs about 3 µs a flow."
KEPT = 200
"Moves remembered for `sipnemo moves`."


class Handover:
    """Plans, paces and watches the moves of all calls."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self.waves: deque[Wave] = deque(maxlen=KEPT)
        self._number = 0
        self.pacing = Pacing(node)
        self._watching: dict[Session, Move] = {}
        self._watcher: Timer | None = None
        self._read: list[Move] = []
        "Those whose counters are being read now."
        self._giving_up: Timer | None = None
        self._unheard: dict[Session, None] = {}
        "Calls whose SIP-CN is heard by none of the paths it has agreed to."
        self._redirected: dict[int, int] = {}
        "Group of a path that is OFF → group of the path its packets leave by meanwhile."

    # ------------------------------------------------------------------------------------------ what makes it move

    def path_off(self, path: Path, cause: str, now: float) -> None:
        """A path is not to be used any more: every call of it moves."""
        planned = cause == "command" and path.works
        sessions = [session for session in path.sessions if session.status is not SessionStatus.TERMINATED]
        wave = self._wave(path, cause, planned, now)
        wave.calls = len(sessions)
        if not planned:
            self._redirect(path, now)
            self._node.home.path_lost(path, now)  # before the re-INVITEs leave (MH-8)
        self.pacing.path_off(path, now)
        self._plan_all(sessions, wave, now)
        self._aim_elsewhere(path, now)
        self._suspend(now)

    def path_died(self, path: Path, cause: str, now: float) -> None:
        """A path that was drained works no more: what was planned for its calls becomes urgent."""
        self._redirect(path, now)
        self._node.home.path_lost(path, now)
        silent_for = self._silent_for(path, cause, now)
        for session in list(path.sessions):
            if session.move is not None:
                session.move.hasten(silent_for, now)
        left = [session for session in path.sessions if session.move is None]  # their SIP-CNs would not follow
        if left:
            wave = self._wave(path, cause, False, now)
            wave.calls = len(left)
            self._plan_all(left, wave, now)
        self._suspend(now)

    def _aim_elsewhere(self, path: Path, now: float) -> None:
        """Calls that are still on another path, and were to move to the one that is OFF now."""
        for session in list(self._node.calls.open):
            move = session.move
            if move is not None and move.path is path and session.path is not path:
                move.aim_lost(now)

    def _suspend(self, now: float) -> None:
        if not self._node.paths.on() and self._giving_up is None:
            self._giving_up = self._node.timers.set(now + self._node.settings.session.suspend_for, self._give_up)

    def _give_up(self, now: float) -> None:
        """No path for too long: the calls that waited for one end (R18)."""
        self._giving_up = None
        for session in [session for session in self._node.calls.open if not session.path.works]:
            self._node.own_requests.hang_up_outside(session, "no uplink", now)
            self._node.own_requests.hang_up_inside(session, "no uplink", now)

    def path_on(self, path: Path, now: float) -> None:
        """A path can be used: calls that had none move to it."""
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        if self._redirected.pop(path.group, None) is not None:
            self._node.act(SetPath(self._node.paths.media_path(path)))
        stranded = [s for s in self._node.calls.open if not s.path.on and s.live and s.move is None]
        for off in dict.fromkeys(session.path for session in stranded):
            wave = self._wave(off, off.reason or "address", off.works, now)
            if not off.works:
                self._redirect(off, now)
            there = [session for session in stranded if session.path is off]
            wave.calls = len(there)
            self._plan_all(there, wave, now)
        for move in self._queue_waiting():
            move.resume(now)
        self._listen_elsewhere(path, now)

    def _listen_elsewhere(self, path: Path, now: float) -> None:
        """Calls whose SIP-CN is heard by no path that there was try the one that is back (R7)."""
        speech = self._node.load.speech
        deaf = [s for s in self._unheard if s.live and s.move is None and s.path is not path]
        deaf = [session for session in deaf if not speech(session).spoke_down]
        self._unheard.clear()
        for present in dict.fromkeys(session.path for session in deaf):
            there = [session for session in deaf if session.path is present]
            wave = self._wave(present, "unheard", True, now)
            wave.calls = len(there)
            self._plan_all(there, wave, now)

    def bring_back(self, path: Path, sessions: list[Session], now: float) -> Wave:
        """These calls leave a path that works for one that the policy prefers (`returning.py`)."""
        wave = self._wave(path, "return", True, now)
        wave.calls = len(sessions)
        self._plan_all(sessions, wave, now)
        return wave

    def renew(self, path: Path, now: float) -> None:
        """A NAT maps a path anew: its calls stay on it, and each tells its far end where it is now (R10)."""
        sessions = [session for session in path.sessions if session.live and not session.ending]
        wave = self._wave(path, "nat", False, now)
        wave.calls = len(sessions)
        self._plan_all(sessions, wave, now)

    def session_stranded(self, session: Session, now: float, left: Path) -> None:
        """A call was answered that began on a path which has gone meanwhile: it moves at once (R3)."""
        if session.move is None:
            wave = next((w for w in reversed(self.waves) if w.from_path == left.name), None)
            wave = wave or self._wave(left, left.reason, False, now)
            wave.calls += 1
            wave.done_at = None
            self._plan_all([session], wave, now)

    def session_free(self, session: Session, now: float) -> None:
        """No INVITE of either end is at hand any more: a move that waited for that goes on."""
        if session.move is not None:
            session.move.resume(now)

    def session_ended(self, session: Session, now: float) -> None:
        """The call is over; so is its move."""
        self._unheard.pop(session, None)
        if session.move is not None:
            session.move.end(Outcome.HUNG_UP, Reason.NONE, now)

    # -------------------------------------------------------------------------------------------------- planning

    def _wave(self, path: Path, cause: str, planned: bool, now: float) -> Wave:
        self._number += 1
        wave = Wave(self._number, cause, path.name, planned, now, self._silent_for(path, cause, now))
        self.waves.append(wave)
        return wave

    def _silent_for(self, path: Path, cause: str, now: float) -> float:
        """How long a path has been silent that is OFF now, in seconds."""
        # Of a carrier or an address the kernel tells at once; a silent path is known by when it last spoke.
        heard = self._node.last_heard(path)
        return now - heard if cause == "probe" and heard is not None else 0.0

    def _redirect(self, path: Path, now: float) -> None:
        """The uplink direction of all calls of a dead path, with one write (RO-10)."""
        others = [other for other in self._node.ranked(None) if other is not path]
        others.sort(key=lambda other: other.ipv6 is not path.ipv6)  # by the other family its media lead nowhere
        best = others[0] if others else None
        if best is not None:
            self._redirected[path.group] = best.group
            also = self._node.doubling.also(path, best)
            self._node.act(SetPath(MediaPath(path.group, best.address, best.device, also)))

    def _plan_all(self, sessions: list[Session], wave: Wave, now: float) -> None:
        """Move these calls, in their order; those for which there is no room yet are queued (`pacing.py`)."""
        policy = self._node.settings.policy
        moves: list[Move] = []
        for session in sorted(sessions, key=lambda session: rank(session, policy)):
            if session.move is not None:
                session.move.overtaken(now)
            if session.live:
                move = session.move = Move(self, self._node, session, wave)
                if wave.cause == "unheard":
                    move.checking.unheard(session.path)
                moves.append(move)
            elif not session.outgoing:
                # Ringing: a call from outside is answered from the new path; another moves when it is answered.
                self._node.calls.rehome(session, now)
        wave.moving += len(moves)
        for move in moves:
            move.start(now)
        self._settle(wave, now)

    def _queue_waiting(self) -> list[Move]:
        return [s.move for s in self._node.calls.open if s.move is not None and s.move.waiting_for_path]

    # ------------------------------------------------------------------------------------------------- watching

    def watch(self, move: Move, now: float) -> None:
        """The SIP-CN has answered: look for media on the new path (R7)."""
        self._watching[move.session] = move
        if self._watcher is None and not self._read:
            self._watch(now)

    def unwatch(self, move: Move) -> None:
        """The move has ended."""
        if self._watching.get(move.session) is move:
            del self._watching[move.session]

    def _watch(self, now: float) -> None:
        self._watcher = None
        if not self._watching:
            return
        self._read = list(islice(self._watching.values(), WATCHED))
        keys = [key for move in self._read for key in move.checking.to_count()]
        self._node.act(ReadCounters(self._node.ticket(self._counted), tuple(keys)))

    def _counted(self, counted: Counted, now: float) -> None:
        counters: Mapping[FlowKey, tuple[int, int]] = counted.counters
        read, self._read = self._read, []
        for move in read:
            if self._watching.get(move.session) is move:
                self._watching[move.session] = self._watching.pop(move.session)  # to the end: each gets its turn
                move.checking.counted(counters, now)
        if self._watching and self._watcher is None:
            self._watcher = self._node.timers.set(now + WATCH_EVERY, self._watch)

    # -------------------------------------------------------------------------------------------------- the end

    def moved(self, move: Move, outcome: Outcome, reason: Reason, now: float, detail: str) -> None:
        """One call's move has ended."""
        self.unwatch(move)
        self.pacing.forget(move)
        if reason is Reason.NOT_HEARD:
            self._unheard[move.session] = None
        else:
            self._unheard.pop(move.session, None)
        wave = move.wave
        record = self._record(move, outcome, reason, detail)
        self._node.act(Count("moves", (wave.cause, outcome.value, reason.value)))
        if move.answered_after is not None:
            self._node.act(Observe("move_answer_seconds", move.answered_after))
        for direction, gap in (("up", record.gap_up), ("down", record.gap_down)):
            if gap is not None:
                self._node.act(Observe("move_gap_seconds", gap, (direction,)))
        self._settle(wave, now)

    def put_off(self, move: Move, detail: str, now: float) -> None:
        """It goes on when the SIP-MN asks for something; nobody else waits for that."""
        self.unwatch(move)
        self._record(move, Outcome.WAITING, Reason.CHALLENGED, detail)
        self._node.log("info", "move put off", move.session.call_id, detail=detail)
        self._settle(move.wave, now)

    def _record(self, move: Move, outcome: Outcome, reason: Reason, detail: str) -> MoveRecord:
        record = MoveRecord.of(move, outcome, reason, detail)
        if move.record is None:
            move.wave.moving -= 1
        move.wave.add(record, move.record)
        move.record = record
        return record

    def _settle(self, wave: Wave, now: float) -> None:
        if wave.done_at is None and wave.moving == 0:
            wave.done_at = now
            if wave.calls:
                self._node.log("info", "calls moved", **wave.row(each=False))
                self._node.act(Notice("moved", wave.row(each=False)))
            self._node.returning.wave_done(wave, now)
