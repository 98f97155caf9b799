"""When a re-INVITE may leave: the most urgent first, and never more at a time than path and next hop can take.

Each E-face has a lane. What leaves and what will come back is metered in octets to a share of its capacity, as long
as that is known; a window bounds what is unanswered (`window.py`). Repeated INVITEs are taken from their transactions
and go through the same gate, so that a crowded link is not made worse by Timer A (RFC 3261 §17.1.1.2); a 100 ends
them. Next hops that ask for less are in `hops.py`.

A move asks `admits` before it sends. If it may not, it is queued here, and started again when its turn has come; by
then it may have another path in mind, and asks for that one.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from sipnemo.roles.nms.move.hops import DEFER, Hop, Hops
from sipnemo.roles.nms.move.lane import Lane
from sipnemo.roles.nms.move.order import Rank, rank
from sipnemo.roles.nms.move.window import LEAST

if TYPE_CHECKING:
    from sipnemo.roles.nms.move.reinvite import Move
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

FORGET_AFTER: Final = 10.0
"Seconds without work after which a lane begins anew: what it has measured may hold no more (RFC 9293's idle restart)."


class Pacing:
    """The lanes, and what waits in them."""

    def __init__(self, node: MobilityServer) -> None:
        self.node = node
        self.hops = Hops()
        self._lanes: dict[int, Lane] = {}
        self.serial = 0
        self.places: dict[Move, int] = {}
        "Moves that wait for their turn, and the serial number of the place that counts."
        self.turn: tuple[Lane, Move] | None = None
        "The move that is being started because its turn in that lane has come."

    @property
    def idle(self) -> bool:
        """Nothing waits, and nothing is under way."""
        return not self.places and all(lane.idle for lane in self._lanes.values())

    def lane(self, path: Path, now: float) -> Lane:
        """What leads over this path's E-face."""
        lane = self._lanes.get(path.eface.id)
        if lane is None or (lane.idle and now > lane.used_at + FORGET_AFTER):
            lane = self._lanes[path.eface.id] = Lane(self, path, now)
        lane.path = path
        return lane

    def admits(self, move: Move, path: Path, now: float) -> bool:
        """Whether a move may send over this path now; if not, it is started again when it may."""
        lane = self.lane(path, now)
        if self.turn != (lane, move) and not lane.free(now):
            lane.push(move, now)
            return False
        self.places.pop(move, None)
        hop = self._hop(move)
        if hop is not None:
            if not hop.open(now):
                heappush(hop.queue, self.place(move))
                self._open_later(hop, now)
                return False
            # Urgent calls go in any case (RFC 7339 §5.10.1).
            if not rank(move.session, self.node.settings.policy)[0] and hop.declines(self.node.ids.chance(), now):
                move.put_off(DEFER, now)
                return False
        return True

    def path_off(self, path: Path, now: float) -> None:
        """Nothing of what was reckoned of this path holds; who waited for it looks for another.

        Its probes may have been lost in a crowd of our own: should it come back at once, it begins with little."""
        if any(other.eface is path.eface for other in self.node.paths.on()):
            return  # the E-face works, one of its addresses does not
        lane = self._lanes.pop(path.eface.id, None)
        for other in self.node.paths.on():
            self.lane(other, now).expect(path.rate if lane is None else max(path.rate, lane.media(now)), now)
        if lane is not None:
            if path.reason == "probe":
                self._lanes[path.eface.id] = Lane(self, path, now, LEAST)
            for move in lane.leave():
                move.start(now)

    def place(self, move: Move) -> tuple[Rank, int, Move]:
        """A place in a queue; one that the move had elsewhere counts no more."""
        self.serial += 1
        self.places[move] = self.serial
        return rank(move.session, self.node.settings.policy), self.serial, move

    def next_of(self, queue: list[tuple[Rank, int, Move]]) -> Move | None:
        """Take the first move out of a queue that still waits in it."""
        while queue:
            _, serial, move = heappop(queue)
            if self.places.get(move) == serial:
                del self.places[move]
                if not move.over:
                    return move
        return None

    def forget(self, move: Move) -> None:
        """It has ended."""
        self.places.pop(move, None)

    def _open(self, hop: Hop, now: float) -> None:
        """Start what waits for a next hop, as far as it may."""
        hop.timer = None
        while hop.open(now) and (move := self.next_of(hop.queue)) is not None:
            move.start(now)
            if move in self.places:
                break  # its lane is full, and will start it
        self._open_later(hop, now)

    def _open_later(self, hop: Hop, now: float) -> None:
        """Look again when the hop opens, or has answered, or in a while."""
        if hop.queue and hop.timer is None:
            hop.timer = self.node.timers.set(max(hop.closed_until, now + DEFER), lambda at: self._open(hop, at))

    def hop_answered(self, hop: Hop) -> None:
        """One under way less: the next may go."""
        hop.done()
        if hop.queue:
            if hop.timer is not None:
                hop.timer.cancel()
            hop.timer = self.node.timers.set(max(hop.closed_until, 0.0), lambda at: self._open(hop, at))

    def _hop(self, move: Move) -> Hop | None:
        dialog = move.session.dialog
        target = dialog.next_hop if dialog is not None else None
        return None if target is None else self.hops.of((target.host, target.port))
