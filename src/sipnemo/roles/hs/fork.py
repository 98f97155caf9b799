"""The response context (RFC 3261 §16.7): one request, its legs, and the one best answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.hs.leg import Leg
from sipnemo.roles.hs.outgoing import Hop, Outgoing
from sipnemo.sip.message import Response
from sipnemo.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.hs.node import HomeServer

_TELLING: Final = (401, 407, 415, 420, 484)
"Of the 4xx, those that help the caller to a better request (§16.7 item 6)."
_CHALLENGES: Final = ("www-authenticate", "proxy-authenticate")


class Fork:
    """Forwards one request to one or several places."""

    def __init__(
        self, hs: HomeServer, server: ServerTransaction, outgoing: Outgoing, mark: str, targets: list[list[Hop]]
    ) -> None:
        self.hs: Final = hs
        self.server: Final = server
        self.outgoing: Final = outgoing
        self.method: Final = outgoing.method
        self.mark: Final = mark
        self._legs: Final = [Leg(self, hops) for hops in targets]
        self._best: tuple[int, Response | None] = (0, None)
        self._challenged: Final[list[Response]] = []
        self._cancelled = False
        server.user = self

    def start(self, now: float) -> None:
        """Send the request everywhere."""
        for leg in self._legs:
            leg.start(now)

    def cancel(self, now: float) -> None:
        """The caller hangs up before the answer (§16.10)."""
        self._cancelled = True
        for leg in self._legs:
            leg.cancel(now)

    def provisional(self, response: Response, now: float) -> None:
        """A leg is ringing: say so at once (§16.7 item 5)."""
        if not self.server.finished:
            self._forward(response, now)

    def success(self, leg: Leg, response: Response, first: bool, now: float) -> None:
        """A 2xx: the first ends the other legs; of an INVITE, every one is passed on (§16.7 items 5 and 10)."""
        self._forward(response, now)
        if first:
            for other in self._legs:
                if other is not leg:
                    other.cancel(now)

    def failed(self, status: int, response: Response | None, now: float) -> None:
        """A leg has ended without a 2xx; `response` is None when the status is our own."""
        if status in (401, 407) and response is not None:
            self._challenged.append(response)
        if not self._best[0] or _rank(status) < _rank(self._best[0]):
            self._best = (status, response)
        if status >= 600:
            for leg in self._legs:
                leg.cancel(now)
        if not self.server.finished and all(leg.ended for leg in self._legs):
            self._answer(now)

    def _answer(self, now: float) -> None:
        """All legs have failed: the best of their answers (§16.7 items 6 and 7)."""
        status, response = self._best
        if self._cancelled and status < 600 and (response is None or status in (408, 480)):
            status, response = 487, None
        if response is None:
            self.hs.respond(self.server, status, now)
        elif status == 503:
            # A 503 of ours would keep the caller from this server; that one leg is overloaded is no such reason.
            self.hs.respond(self.server, 500, now)
        else:
            if status in (401, 407):
                for other in self._challenged:
                    if other is not response:
                        _add_challenges(response, other)
            self._forward(response, now)

    def _forward(self, response: Response, now: float) -> None:
        """Pass a response on: without our Via, else as it came (§16.7 items 3 and 9)."""
        response.pop("via")
        if "via" in response.names:
            self.server.respond(response.status, response.encode(), now)


def _rank(status: int) -> int:
    """The lower, the better to answer with."""
    if status >= 600:
        return 0
    if status in _TELLING:
        return 400
    if status == 503:
        return 599
    return status // 100 * 100 + (50 if status in (408, 480, 487) else 10)


def _add_challenges(response: Response, other: Response) -> None:
    for name, line in zip(other.names, other.lines, strict=True):
        if name in _CHALLENGES:
            response.append(name, line)
