"""Next hops that ask for less: 503 with Retry-After (RFC 3261 §21.5.4) and overload control (RFC 7339).

A 503 to one call's re-INVITE is said to all: nothing more goes to that hop before its Retry-After, and then one at a
time, twice as many with each answer. Overload control is spoken as client, with the loss algorithm: of the moves that
would go to the hop, the wanted share is put off, not given up; urgent calls go all the same (RFC 7339 §5.10.1).

The parameters are offered in the Via of re-INVITEs only. A call of a phone's own is refused by the hop itself, and the
phone, which made it, must hear so; but hundreds of re-INVITEs at one instant are of our making.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.sip.flow import Address
from sipnemo.sip.message import Response, parameter, split_list
from sipnemo.sip.timers import Timer

if TYPE_CHECKING:
    from sipnemo.roles.nms.move.order import Rank
    from sipnemo.roles.nms.move.reinvite import Move

OFFER: Final = ';oc;oc-algo="loss"'
"What our Via says (RFC 7339 §4.1, §4.2)."
VALIDITY: Final = 0.5
"Seconds that an `oc` without oc-validity holds (§4.3)."
DEFER: Final = 0.5
"Seconds by which a move is put off."
PAUSE: Final = 0.5
"Seconds for which a 503 without Retry-After stops everything; doubled with each in a row."
LONGEST: Final = 32.0
FORGET_AFTER: Final = 60.0
"Seconds after its last complaint when a hop is as any other."


class Hop:
    """A next hop that has complained."""

    __slots__ = (
        "_complained_at",
        "_refusals",
        "_room",
        "_sequence",
        "_under_way",
        "_valid_until",
        "closed_until",
        "oc",
        "queue",
        "timer",
    )

    def __init__(self) -> None:
        self.closed_until = float("-inf")
        "Nothing goes there before."
        self.oc = 0
        "Percent of requests that it wants not to see."
        self._valid_until = float("-inf")
        self._sequence = -1.0
        self._refusals = 0
        self._room = float("inf")
        "How many may be under way: none is counted before the first 503."
        self._under_way = 0
        self._complained_at = float("-inf")
        self.queue: list[tuple[Rank, int, Move]] = []
        "Moves that wait for it, as a heap: rank, serial number, move."
        self.timer: Timer | None = None
        "When they are looked at."

    def open(self, now: float) -> bool:
        """Whether one more request may go there."""
        return now >= self.closed_until and self._under_way < self._room

    def declines(self, chance: float, now: float) -> bool:
        """Whether this request is of the share that it does not want now; `chance`: from 0 to 1."""
        return now < self._valid_until and chance * 100 < self.oc

    def sent(self) -> None:
        """A request has gone there."""
        self._under_way += 1

    def done(self) -> None:
        """It has ended, one way or another."""
        self._under_way = max(0, self._under_way - 1)

    def heard(self, response: Response, retry_after: float, now: float) -> None:
        """A response has come from there."""
        self._overload(response, now)
        if response.status == 503:
            if now >= self.closed_until:  # those sent before it was known are not told twice
                self._refusals += 1
            pause = retry_after or min(PAUSE * 2.0 ** (self._refusals - 1), LONGEST)
            self.closed_until = max(self.closed_until, now + min(pause, LONGEST))
            self._room = 1.0
            self._complained_at = now
        elif response.status >= 200:
            self._refusals = 0
            self._room += 1.0

    def _overload(self, response: Response, now: float) -> None:
        """RFC 7339 §5.4: the newest word counts, for as long as it says."""
        via = split_list(response.value("via"))[0]
        text = parameter(via, "oc") if ";oc=" in via else None
        if not text or not text.isdecimal() or len(text) > 3:
            return
        sequence = _number(parameter(via, "oc-seq"))
        if sequence is not None:
            if sequence <= self._sequence and now < self._valid_until:
                return
            self._sequence = sequence
        validity = _number(parameter(via, "oc-validity"))
        self.oc = min(int(text), 100)
        self._valid_until = now + (VALIDITY if validity is None else min(validity / 1000, LONGEST))
        self._complained_at = now

    def forgotten(self, now: float) -> bool:
        """Whether there is nothing to remember."""
        return now > max(self._complained_at, self.closed_until) + FORGET_AFTER and not (self._under_way or self.queue)


class Hops:
    """The next hops that have complained; all others need no entry."""

    def __init__(self) -> None:
        self._hops: dict[Address, Hop] = {}

    def of(self, remote: Address) -> Hop | None:
        """What is known of a hop."""
        return self._hops.get(remote)

    def heard(self, remote: Address, response: Response, retry_after: float, now: float) -> None:
        """A response has come; who complains is remembered."""
        hop = self._hops.get(remote)
        if hop is None:
            if response.status != 503 and ";oc=" not in response.value("via"):
                return
            for known in [known for known, old in self._hops.items() if old.forgotten(now)]:
                del self._hops[known]
            hop = self._hops[remote] = Hop()
        hop.heard(response, retry_after, now)


def _number(text: str | None) -> float | None:
    """A decimal number as oc-seq ("1282321615.782") and oc-validity write it."""
    whole, _, part = (text or "").partition(".")
    return float(text or "") if whole.isdecimal() and len(whole) < 12 and (part + "0").isdecimal() else None
