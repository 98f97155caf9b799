"""What leaves by one E-face while calls move: metered, and repeated when there is room (`pacing.py` has the why)."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from sipnemo.roles.nms.move.hops import Hop
from sipnemo.roles.nms.move.window import Meter, Window
from sipnemo.roles.node import Send
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Response
from sipnemo.sip.timers import Timer
from sipnemo.sip.transaction import ClientTransaction, ClientUser

if TYPE_CHECKING:
    from sipnemo.roles.nms.move.order import Rank
    from sipnemo.roles.nms.move.pacing import Pacing
    from sipnemo.roles.nms.move.reinvite import Move
    from sipnemo.roles.nms.path.paths import Path

OPEN: Final = 1000.0
"The first window of a path of unknown capacity: nothing speaks against it until an answer is late."
EXCHANGE: Final = 2500
"Octets up or down for one move, before any was seen: for the first window."
ANSWER: Final = 1500
"Octets that a re-INVITE brings back, before any was seen: 100 and 200 with their headers."
LEAST_SHARE: Final = 0.1
"Share of the capacity that re-INVITEs get when media would fill it all: without them there would be none for long."
FULL: Final = 0.95
"Share of the capacity that media and re-INVITEs together may take."
BURST: Final = 0.01
"Seconds by which re-INVITEs may be ahead of `pace`."
KNOWN_FOR: Final = 5.0
"Seconds after calls begin to move when the counters show their load on the new path, so that it need not be foreseen."
OVERHEAD: Final = {"UDP": 28, "TCP": 52, "TLS": 81}
"Octets of IP (version 4) and transport around a message."
LIMITLESS: Final = float("inf")
TICK: Final = 0.0005


class Flight:
    """A re-INVITE under way; it hears the answers before its user does."""

    __slots__ = (
        "client",
        "expected",
        "heard",
        "hop",
        "interval",
        "lane",
        "over",
        "repeated",
        "seen",
        "sent_at",
        "user",
    )

    def __init__(self, lane: Lane, user: ClientUser, hop: Hop | None, expected: float, now: float) -> None:
        self.lane = lane
        self.user = user
        self.hop = hop
        self.expected = expected
        "Octets that are reckoned to come back."
        self.seen = 0
        "Octets that have come back."
        self.sent_at = now
        self.interval = lane.window.patience
        "Seconds until it is repeated."
        self.repeated = False
        self.heard = False
        "Some answer has come: it is not repeated any more."
        self.over = False
        self.client: ClientTransaction | None = None

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """Measure, then tell the user."""
        self.lane.response(self, response, now)
        self.user.on_response(client, response, now)
        self.lane.pump(now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """It will never be answered."""
        self.lane.ended(self)
        self.user.on_failure(client, status, now)
        self.lane.pump(now)


class Lane:
    """All that leaves by one E-face."""

    def __init__(self, pacing: Pacing, path: Path, now: float, most: float = OPEN) -> None:
        self._pacing = pacing
        self._node = pacing.node
        self.path = path
        self.used_at = now
        self._share = self._node.settings.move.share / 100
        capacity = path.eface.capacity
        rtt = path.rtt or 0.0
        room = OPEN if capacity is None else capacity * self._share * (rtt + 0.2) / 8 / EXCHANGE
        self.window = Window(min(room, most), path.rtt)
        self._up, self._down, self._count = Meter(), Meter(), Meter(BURST)
        self._answer = float(ANSWER)
        "Octets that a re-INVITE brings back, smoothed."
        self._media = 0.0
        self._foreseen_until = now
        self._flying: dict[Flight, None] = {}
        "Unanswered, and not overdue."
        self._overdue: deque[Flight] = deque()
        "To be repeated as soon as there is room."
        self._due: list[tuple[float, int, Flight]] = []
        "A heap: when a flight is to be looked at."
        self._queue: list[tuple[Rank, int, Move]] = []
        self._timer: Timer | None = None

    @property
    def idle(self) -> bool:
        """Nothing waits, and nothing is under way."""
        return not (self._flying or self._overdue or self._queue or self._due)

    def media(self, now: float) -> float:
        """Bits per second of media on this E-face, those included that are about to come."""
        return max(self.path.rate, self._media) if now < self._foreseen_until else self.path.rate

    def expect(self, more: float, now: float) -> None:
        """Calls with so much media are about to come; the counters will tell how many."""
        self._media = self.media(now) + more
        self._foreseen_until = now + KNOWN_FOR

    def rate(self, now: float) -> float:
        """Bits per second that re-INVITEs, and as much that their answers, may take."""
        capacity = self.path.eface.capacity
        if capacity is None:
            return LIMITLESS
        wanted = min(self._share * capacity, FULL * capacity - self.media(now))
        return max(LEAST_SHARE * capacity, wanted)

    # ------------------------------------------------------------------------------------------------- sending

    def free(self, now: float) -> bool:
        """Whether a request may leave now, before everything that waits."""
        return not self._queue and not self._overdue and self._may_send(now)

    def push(self, move: Move, now: float) -> None:
        """Wait for a turn."""
        heappush(self._queue, self._pacing.place(move))
        self._wake(now)

    def request(
        self, user: ClientUser, branch: str, method: str, data: bytes, flow: Flow, now: float
    ) -> ClientTransaction:
        """Send a request as `TransactionLayer.request` does: metered, and repeated only when there is room."""
        hop = self._pacing.hops.of(flow.remote)
        flight = Flight(self, user, hop, self._answer, now)
        self._flying[flight] = None
        if hop is not None:
            hop.sent()
        client = flight.client = self._node.layer.request(flight, branch, method, data, flow, now)
        if not flow.reliable:
            client.hush()
        self._count.take(1.0, self._node.settings.move.pace, now)
        self.spend(data, flow, now)
        self._down.take(self._answer * 8, self.rate(now), now)
        self._look(flight, now + flight.interval)
        self._wake(now)
        return client

    def spend(self, data: bytes, flow: Flow, now: float) -> None:
        """A message has left."""
        self.used_at = now
        self._up.take((len(data) + OVERHEAD[flow.local.transport]) * 8, self.rate(now), now)

    def pump(self, now: float) -> None:
        """Repeat and start what there is room for; wake up when there will be room for more."""
        pacing = self._pacing
        while pacing.turn is None and self._may_send(now):
            if self._overdue:
                self._repeat(self._overdue.popleft(), now)
                continue
            move = pacing.next_of(self._queue)
            if move is None:
                break
            pacing.turn = (self, move)
            try:
                move.start(now)
            finally:
                pacing.turn = None
        self._wake(now)

    def leave(self) -> list[Move]:
        """The path is OFF: forget what is under way, and give back what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for flight in [*self._flying, *self._overdue]:
            self.ended(flight)
        self._due.clear()
        waiting = []
        while (move := self._pacing.next_of(self._queue)) is not None:
            waiting.append(move)
        return waiting

    def _ready_at(self) -> float:
        return max(self._up.ready_at, self._down.ready_at, self._count.ready_at)

    def _may_send(self, now: float) -> bool:
        # Timers are rounded to milliseconds: one may be due a little before the instant that it was set for.
        return self._ready_at() <= now + TICK and self._has_room()

    def _has_room(self) -> bool:
        return len(self._flying) < int(self.window.size)

    def _repeat(self, flight: Flight, now: float) -> None:
        client = flight.client
        if client is None or flight.heard or client.finished:
            return
        flight.repeated = True
        flight.interval *= 2  # Timer A
        self._flying[flight] = None
        self._node.act(Send(client.data, client.flow))
        self.spend(client.data, client.flow, now)
        self._look(flight, now + flight.interval)

    def _look(self, flight: Flight, at: float) -> None:
        self._pacing.serial += 1
        heappush(self._due, (at, self._pacing.serial, flight))

    # ------------------------------------------------------------------------------------------------ answers

    def response(self, flight: Flight, response: Response, now: float) -> None:
        """Any response to a flight, before its move hears it."""
        client = flight.client
        assert client is not None
        self.used_at = now
        self._pacing.hops.heard(client.flow.remote, response, retry_after(response), now)
        flight.seen += size(response) + OVERHEAD[client.flow.local.transport]
        if flight.over:
            return
        if not flight.heard:
            flight.heard = True
            self._flying.pop(flight, None)
            self.window.answered(None if flight.repeated else now - flight.sent_at, now)
            prober = self._node.probers.get(self.path)
            if prober is not None:
                prober.spoken(now)
        if response.status >= 200:
            self._down.take((flight.seen - flight.expected) * 8, self.rate(now), now)
            self._answer += 0.125 * (flight.seen - self._answer)
            self.ended(flight)

    def ended(self, flight: Flight) -> None:
        """A flight has its final answer, or never will."""
        self._flying.pop(flight, None)
        flight.heard = True
        if not flight.over:
            flight.over = True
            if flight.hop is not None:
                self._pacing.hop_answered(flight.hop)

    # ------------------------------------------------------------------------------------------------- waking

    def _wake(self, now: float) -> None:
        """Set the timer to whatever comes first."""
        at = self._due[0][0] if self._due else float("inf")
        if (self._queue or self._overdue) and self._has_room():
            at = min(at, max(self._ready_at(), now))
        if self._timer is not None:
            if self._timer.at <= at:
                return  # soon enough: it looks again then
            self._timer.cancel()
            self._timer = None
        if at < float("inf"):
            self._timer = self._node.timers.set(at, self._woken)

    def _woken(self, now: float) -> None:
        self._timer = None
        while self._due and self._due[0][0] <= now + TICK:
            self._judge(heappop(self._due)[2], now)
        self.pump(now)

    def _judge(self, flight: Flight, now: float) -> None:
        """Is a flight lost, given up by its move, or only waiting for its final answer?"""
        client = flight.client
        if flight.over or client is None:
            return
        if client.finished:
            self.ended(flight)  # abandoned: its move has told nobody
        elif flight.heard or client.flow.reliable:
            self._look(flight, now + flight.interval)
        else:
            self.window.lost(now)
            self._flying.pop(flight, None)
            self._overdue.append(flight)


def size(response: Response) -> int:
    """Octets of a response."""
    return len(response.start_line) + 4 + sum(map(len, response.lines)) + 2 * len(response.lines) + len(response.body)


def retry_after(response: Response) -> float:
    """The seconds of a Retry-After, at most 32; 0.0 without one."""
    text = response.value("retry-after").partition(";")[0].partition("(")[0].strip()
    return min(float(text), 32.0) if text.isdecimal() and len(text) < 8 else 0.0
