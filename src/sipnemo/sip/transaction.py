"""The four machines of RFC 3261 §17, with RFC 6026's corrections. No branch lookup: `transaction_layer.py` has it.

Each machine reads like its figure. A machine sends by appending to the layer's outbox, tells its user what arrived,
and takes itself out of the layer when it terminates.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol

from sipnemo.sip.actions import send
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, Response
from sipnemo.sip.timers import NEVER, T1, T2, TIMEOUT, Line, Timer

if TYPE_CHECKING:
    from sipnemo.sip.transaction_layer import TransactionLayer


class State(IntEnum):
    """States of all four figures; TRYING, CONFIRMED and ACCEPTED exist in some only."""

    CALLING = 0
    TRYING = 1
    PROCEEDING = 2
    COMPLETED = 3
    CONFIRMED = 4
    ACCEPTED = 5
    TERMINATED = 6


CALLING: Final = State.CALLING
TRYING: Final = State.TRYING
PROCEEDING: Final = State.PROCEEDING
COMPLETED: Final = State.COMPLETED
CONFIRMED: Final = State.CONFIRMED
ACCEPTED: Final = State.ACCEPTED
TERMINATED: Final = State.TERMINATED


class ClientUser(Protocol):
    """Who sent a request: the transaction user of a client transaction (§17.1)."""

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """A response that is not a retransmission, or a further 2xx to an INVITE (RFC 6026 §7.2)."""

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """No final response: 408 nothing came in time, 503 the transport failed (§8.1.3.1)."""


class Nobody:
    """The user of a transaction that has terminated: with it the last reference to whoever it was goes."""

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """Absorb it."""

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """Absorb it."""


NOBODY: Final = Nobody()


class ClientTransaction:
    """A request of ours and its responses (figures 5 and 6)."""

    __slots__ = (
        "_gives_up_at",
        "_timer",
        "branch",
        "data",
        "due_at",
        "flow",
        "interval",
        "key",
        "layer",
        "method",
        "state",
        "user",
    )

    def __init__(
        self, layer: TransactionLayer, user: ClientUser, branch: str, method: str, data: bytes, flow: Flow
    ) -> None:
        self.layer = layer
        self.user = user
        self.branch = branch
        self.method = method
        self.key = branch + method
        self.data = data
        "The request as sent: repeated octet for octet; empty when that is over."
        self.flow = flow
        self.interval = T1
        self.state = CALLING if method == "INVITE" else TRYING
        self._gives_up_at = 0.0
        self._timer: Timer | None = None
        "Timers A and B, or E and F, take turns: whichever comes next."
        self.due_at = NEVER
        "Of the first of them, which most requests do not live to see, and of D, K or M."

    @property
    def finished(self) -> bool:
        """Whether a final response has come, or never will."""
        return self.state >= COMPLETED

    def start(self, now: float) -> None:
        """Send the request; Timer A or E repeats it, B or F gives up (§17.1.1.2, §17.1.2.2)."""
        layer = self.layer
        layer.out.append(send((self.data, self.flow)))
        self._gives_up_at = now + TIMEOUT
        (layer.patience if self.flow.reliable else layer.repeats).join(self, now)

    def receive(self, response: Response, now: float) -> None:
        """Take in a response that carries this transaction's branch."""
        raise NotImplementedError

    def give_up(self, status: int, now: float) -> None:
        """Tell the user that no final response will come, once."""
        if self.state < COMPLETED:
            user = self.user
            self.terminate()
            user.on_failure(self, status, now)

    def hush(self) -> None:
        """Repeat the request no more, but go on listening: another way to the same place has answered."""
        if self.state < COMPLETED and (self._timer is not None or self.due_at != NEVER):
            self._stop()
            self._timer = self.layer.timers.set(self._gives_up_at, self.due)

    def move(self, flow: Flow, now: float, data: bytes = b"") -> None:
        """Go on over another flow: for a server that has the request already, this is a retransmission of it, since
        branch and sent-by name a transaction, not where it came from (§17.2.3). Until it speaks, it is repeated."""
        self.flow = flow
        if self.state >= COMPLETED:
            return
        self.data = data or self.data
        self._stop()
        self.interval = T1
        self.start(now)

    def abandon(self) -> None:
        """Forget the request: its path is dead, or another attempt has won; late responses are strays."""
        self.terminate()

    def terminate(self) -> None:
        """Leave the layer."""
        self.state = TERMINATED
        if self.due_at != NEVER:
            self.layer.timers.leave()
        self._stop()
        self.layer.forget_client(self)
        self.user = NOBODY

    def _stop(self) -> None:
        self.due_at = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def due(self, now: float) -> None:
        """Repeat the request, or give up; or it has lingered for long enough."""
        if self.state >= COMPLETED:
            self.terminate()
            return
        self._timer = None
        if now >= self._gives_up_at:
            self.give_up(408, now)
            return
        layer = self.layer
        layer.out.append(send((self.data, self.flow)))
        self.interval = self._next_interval()
        self._timer = layer.timers.set(min(now + self.interval, self._gives_up_at), self.due)

    def _next_interval(self) -> float:
        raise NotImplementedError

    def _linger(self, now: float, line: Line) -> None:
        """Absorb retransmissions for as long as this line takes, then terminate (Timers D, K and M)."""
        self._stop()
        line.join(self, now)


_DERIVED: Final = frozenset(
    ("from", "f", "call-id", "i", "max-forwards", "route", "authorization", "proxy-authorization")
)
"What ACK and CANCEL have in common with their INVITE."


class InviteClient(ClientTransaction):
    """Figure 5 with RFC 6026 §7.2: Calling, Proceeding, Accepted, Completed."""

    __slots__ = ()

    def receive(self, response: Response, now: float) -> None:
        """Take in a response to the INVITE."""
        status, state = response.status, self.state
        if state is CALLING or state is PROCEEDING:
            if status < 200:
                self.state = PROCEEDING
                self._stop()  # Timers A and B: from here the user decides how long to wait (Timer C, CANCEL)
                self.user.on_response(self, response, now)
            elif status < 300:
                self.state = ACCEPTED
                self.data = b""
                self._linger(now, self.layer.rest)  # Timer M
                self.user.on_response(self, response, now)
            else:
                self.state = COMPLETED
                self.layer.out.append(send((self.ack_for(response), self.flow)))
                user = self.user
                if self.flow.reliable:
                    self.terminate()
                else:
                    self._linger(now, self.layer.rest)  # Timer D
                user.on_response(self, response, now)
        elif state is ACCEPTED and 200 <= status < 300:
            self.user.on_response(self, response, now)  # retransmitted, or of another fork: the user ACKs
        elif state is COMPLETED and status >= 300:
            self.layer.out.append(send((self.ack_for(response), self.flow)))  # our ACK was lost
        # else late or stray: absorbed

    def ack_for(self, response: Response) -> bytes:
        """The ACK of a final response other than 2xx (§17.1.1.3)."""
        return self._derived("ACK", response.value("to"))

    def cancel(self) -> bytes:
        """The CANCEL of this INVITE (§9.1)."""
        return self._derived("CANCEL", "")

    def _derived(self, method: str, to_value: str) -> bytes:
        head = self.data.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
        lines = [method + head[0][6:]]
        via_seen = False
        for line in head[1:]:
            name = line[: line.find(":")].lower()
            if name == "via" and not via_seen:
                via_seen = True
                lines.append(line)
            elif name in _DERIVED or (name in ("to", "t") and not to_value):
                lines.append(line)
            elif name == "cseq":
                lines.append(line.replace("INVITE", method))
        if to_value:
            lines.append(f"To: {to_value}")
        lines.append("Content-Length: 0\r\n\r\n")
        return "\r\n".join(lines).encode("latin-1")

    def _next_interval(self) -> float:
        return self.interval * 2  # Timer A doubles without bound; B ends it


class NonInviteClient(ClientTransaction):
    """Figure 6: Trying, Proceeding, Completed."""

    __slots__ = ()

    def receive(self, response: Response, now: float) -> None:
        """Take in a response to the request."""
        if self.state >= COMPLETED:
            return  # retransmitted final response: absorbed
        if response.status < 200:
            self.state = PROCEEDING
            self.user.on_response(self, response, now)
        else:
            self.state = COMPLETED
            self.data = b""
            user = self.user
            if self.flow.reliable:
                self.terminate()
            else:
                self._linger(now, self.layer.short_rest)  # Timer K
            user.on_response(self, response, now)

    def _next_interval(self) -> float:
        return T2 if self.state is PROCEEDING else min(self.interval * 2, T2)  # Timer E


class ServerTransaction:
    """A request of a peer and our responses (figures 7 and 8)."""

    __slots__ = (
        "_gives_up_at",
        "_timer",
        "due_at",
        "flow",
        "interval",
        "key",
        "last",
        "layer",
        "on_end",
        "request",
        "state",
        "user",
    )

    def __init__(self, layer: TransactionLayer, key: str, request: Request, flow: Flow) -> None:
        self.layer = layer
        self.key = key
        self.request = request
        self.flow = flow
        self.last: bytes = b""
        "The response that answers a retransmitted request."
        self.interval = T1
        self.state = PROCEEDING if request.method == "INVITE" else TRYING
        self.user: object = None
        "Whatever the transaction user keeps here."
        self.on_end: Callable[[float], None] | None = None
        "Called when no ACK comes for a final response (§17.2.1, Timer H)."
        self._gives_up_at = NEVER
        self._timer: Timer | None = None
        "Timers G and H take turns."
        self.due_at = NEVER
        "Of the first of them, and of I, J or L."

    @property
    def finished(self) -> bool:
        """Whether a final response has been sent."""
        return self.state >= COMPLETED

    def respond(self, status: int, data: bytes, now: float) -> None:
        """Send a response; after a final one only retransmissions of it (or further 2xx to an INVITE) leave."""
        raise NotImplementedError

    def repeated(self, now: float) -> None:
        """The request came again."""
        if self.last and self.state in (PROCEEDING, COMPLETED):
            self.layer.out.append(send((self.last, self.flow)))

    def acknowledged(self, now: float) -> None:
        """An ACK for our final response, not a 2xx, has come; only an INVITE server cares."""

    def terminate(self) -> None:
        """Leave the layer."""
        self.state = TERMINATED
        if self.due_at != NEVER:
            self.layer.timers.leave()
        self._stop()
        self.layer.forget_server(self)
        self.user = None

    def due(self, now: float) -> None:
        """It has lingered for long enough."""
        self.terminate()

    def _stop(self) -> None:
        self.due_at = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class InviteServer(ServerTransaction):
    """Figure 7 with RFC 6026 §7.1: Proceeding, Accepted, Completed, Confirmed."""

    __slots__ = ()

    def respond(self, status: int, data: bytes, now: float) -> None:
        """Send a response to the INVITE."""
        layer = self.layer
        if self.state is PROCEEDING:
            layer.out.append(send((data, self.flow)))
            if status < 200:
                self.last = data
            elif status < 300:
                self.state = ACCEPTED
                self.last = b""  # repeated by the user, end to end
                layer.rest.join(self, now)  # Timer L
            else:
                self.state = COMPLETED
                self.last = data
                self._gives_up_at = now + TIMEOUT
                (layer.patience if self.flow.reliable else layer.repeats).join(self, now)  # Timers G and H
        elif self.state is ACCEPTED and 200 <= status < 300:
            layer.out.append(send((data, self.flow)))

    def acknowledged(self, now: float) -> None:
        """The ACK for our final response, not a 2xx."""
        if self.state is COMPLETED:
            self.state = CONFIRMED
            self._stop()
            if self.flow.reliable:
                self.terminate()
            else:
                self.layer.short_rest.join(self, now)  # Timer I

    def due(self, now: float) -> None:
        """Repeat the final response until it is acknowledged; or it has lingered for long enough."""
        if self.state is not COMPLETED:
            self.terminate()
            return
        self._timer = None
        if now >= self._gives_up_at:
            self._unacknowledged(now)
            return
        layer = self.layer
        layer.out.append(send((self.last, self.flow)))
        self.interval = min(self.interval * 2, T2)
        self._timer = layer.timers.set(min(now + self.interval, self._gives_up_at), self.due)

    def _unacknowledged(self, now: float) -> None:
        self.terminate()
        if self.on_end is not None:
            self.on_end(now)
            self.on_end = None


class NonInviteServer(ServerTransaction):
    """Figure 8: Trying, Proceeding, Completed."""

    __slots__ = ()

    def respond(self, status: int, data: bytes, now: float) -> None:
        """Send a response to the request."""
        if self.state >= COMPLETED:
            return
        self.last = data
        self.layer.out.append(send((data, self.flow)))
        if status < 200:
            self.state = PROCEEDING
            return
        self.state = COMPLETED
        if self.flow.reliable:
            self.terminate()
        else:
            self.layer.rest.join(self, now)  # Timer J
