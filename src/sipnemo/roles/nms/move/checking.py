"""The SIP-CN has agreed to a path: is it heard there, or is another one better (R7)?

A path is verified as soon as everything that is due has been seen (`verify.py`). Where the SIP-CN was heard before and
is not now, a NAT or filter on that path may swallow it: the next path is tried, each once, and the present one goes on
carrying what it carries until the SIP-CN has agreed. When none is better, the call goes back to the one by which most
was heard; packets may have come there when nobody waited for them any more. Of equal ones the policy's favourite stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from sipnemo.media.flow import INSIDE, FlowKey
from sipnemo.roles.nms.move.outcome import Outcome, Reason
from sipnemo.roles.nms.move.verify import RTCP_WITHIN, Verification
from sipnemo.roles.nms.path.reach import candidates
from sipnemo.roles.node import Counted, ReadCounters
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.move.reinvite import Move
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

RTCP_ASKED_EVERY: Final = 1.0
"Seconds between looks for RTCP."


class Checking:
    """What comes between the SIP-CN's answer and the end of a move."""

    __slots__ = ("_move", "_node", "_rtcp_until", "_timer", "agreed", "final", "heard_at", "seen")

    def __init__(self, move: Move, node: MobilityServer) -> None:
        self._move = move
        self._node = node
        self._timer: Timer | None = None
        self._rtcp_until: float | None = None
        "Until when RTCP is waited for; None: it is not."
        self.seen = Verification(move.session, node.load.speech(move.session))
        self.heard_at: float | None = None
        "When the first packet of the SIP-CN came by the new path."
        self.agreed: list[Path] = []
        "Paths that the SIP-CN agreed to and was not heard by, in the order they were tried."
        self.final: Path | None = None
        "None of them was better: the one to go back to."

    @property
    def nothing_left(self) -> bool:
        """Some path has been agreed to, and the call has not been sent back to the best one yet."""
        return bool(self.agreed) and self.final is None

    def stop(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin(self, path: Path, now: float) -> None:
        """The SIP-CN has agreed to this path."""
        self.stop()
        media = self._move.session.media
        if media is None or not media.flows:
            held = media is not None and media.mn_sdp != ""
            self._move.end(Outcome.UNVERIFIED, Reason.HELD if held else Reason.NO_MEDIA, now)
        elif self.seen.settled(path.address):
            self._move.end(Outcome.VERIFIED, Reason.NONE, now)
        else:
            self._timer = self._node.timers.set(now + self._node.settings.move.verify_after, self._waited)

    def to_count(self) -> list[FlowKey]:
        """The flows to be counted while the move is under way."""
        path = self._move.path
        return self.seen.keys(path.address) if path is not None else []

    def counted(self, counters: Mapping[FlowKey, tuple[int, int]], now: float) -> None:
        """A reading of the counters."""
        move, path = self._move, self._move.path
        self.seen.counted(counters)
        if path is None:
            return
        if self.heard_at is None and self.seen.heard(path.address):
            self.heard_at = now
        if move.answered_after is not None and not move.inviting and self.seen.settled(path.address):
            move.end(Outcome.VERIFIED, Reason.NONE, now)

    def _waited(self, now: float) -> None:
        """`verify_after` is over, and too little is seen; where there is no RTP to wait for, there may be RTCP."""
        self._timer = None
        move, path = self._move, self._move.path
        assert path is not None
        if self.seen.may_have_rtcp and self._rtcp_until is None:
            self._rtcp_until = now + max(0.0, RTCP_WITHIN - self._node.settings.move.verify_after)
            self._node.handover.unwatch(move)  # a whole fleet on hold is not worth reading its counters every moment
        if self._rtcp_until is not None and now < self._rtcp_until:
            self._timer = self._node.timers.set(min(now + RTCP_ASKED_EVERY, self._rtcp_until), self._ask)
            return
        outcome, reason = self.seen.verdict(path.address)
        if reason is Reason.SILENT and path.natted and self.final is None:
            self._look_elsewhere(path)
            return
        if reason is not Reason.NOT_HEARD or self.final is not None:
            move.end(outcome, reason, now)
            return
        self.unheard(path)
        if move.untried(candidates(self._node, move)):
            move.start(now)
        else:
            self.go_back(now)

    def _look_elsewhere(self, path: Path) -> None:
        """It had not spoken before the move; but what it says since may go to the path that was left (`go_back`)."""
        move, media = self._move, self._move.session.media
        keys = tuple(key for key, flow in media.flows.items() if flow.group == INSIDE) if media is not None else ()

        def counted(answer: Counted, at: float) -> None:
            if move.over or move.path is not path:
                return
            self.seen.counted(answer.counters)
            if any(self.seen.heard(key.host) for key in keys if key.host != path.address):
                self.unheard(path)
                self.final = path
                move.start(at)
            else:
                move.end(Outcome.UNVERIFIED, Reason.SILENT, at)

        self._node.act(ReadCounters(self._node.ticket(counted), keys))

    def unheard(self, path: Path) -> None:
        """The SIP-CN has agreed to this path, and is not heard by it although it was before."""
        self.seen.expect_media()
        self.agreed.append(path)
        self._move.refuse(path)

    def go_back(self, now: float) -> None:
        """No path has been better: the best of them it is."""
        move, media = self._move, self._move.session.media
        if media is None:
            move.end(Outcome.UNVERIFIED, Reason.NO_MEDIA, now)
            return

        def counted(answer: Counted, at: float) -> None:
            if move.over:
                return
            self.seen.counted(answer.counters)
            on = [path for path in self.agreed if path.on]
            best = max(on, key=lambda path: self.seen.heard(path.address), default=None)
            # A far end that follows the first packet after each answer may have followed a straggler of the path that
            # was left; asked again, it finds only packets of the new one.
            again = best is not None and best.natted and self.final is None
            if best is None or (best is move.path and best is move.session.path and not again):
                move.end(Outcome.UNVERIFIED, Reason.NOT_HEARD, at)
            else:
                self.final = best
                move.start(at)

        keys = tuple(key for key, flow in media.flows.items() if flow.group == INSIDE)
        self._node.act(ReadCounters(self._node.ticket(counted), keys))

    def _ask(self, now: float) -> None:
        """Has RTCP come?"""
        path, asked = self._move.path, self._timer

        def counted(answer: Counted, at: float) -> None:
            if self._move.over or self._move.path is not path or self._timer is not asked:
                return
            self.counted(answer.counters, at)
            if not self._move.over:
                self._waited(at)

        self._node.act(ReadCounters(self._node.ticket(counted), tuple(self.to_count())))
