"""One place a request is to reach, hop after hop until one answers (MH-11, RFC 3263 §4.3).

The ways to a SIP-NMS are its flows, best Priority first. When the first is silent for `path_timeout` the next is
tried as well, but the first is not given up: if only an answer was late, the SIP-NMS sees the same request twice,
knows it as merged (RFC 3261 §8.2.2.2), and whichever copy it goes on with is the call. The copy that speaks first
is kept; others are cancelled as soon as they speak, so there is never a second call. The first answer is the answer of
all (`verdict.py`): nobody waits for what a dead path may still bring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.endpoint import LARGEST_DATAGRAM
from sipnemo.roles.hs.outgoing import Hop
from sipnemo.roles.hs.verdict import FLOW_FAILED, NOT_THIS_WAY, is_known_already, weight
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Response
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import TIMEOUT, TIMER_C, Timer
from sipnemo.sip.transaction import NOBODY, ClientTransaction, InviteClient, State

if TYPE_CHECKING:
    from sipnemo.roles.hs.fork import Fork

WITHIN_DIALOG: Final = 0.8
"""Patience for a request within a dialog, where `path_timeout` is not even shorter: its first repetition (T1) could
have been answered as well. One copy too many rings nowhere; the SIP-NMS knows it by its CSeq."""


class Leg:
    """One branch of a fork; a client transaction user."""

    def __init__(self, fork: Fork, hops: list[Hop]) -> None:
        self._fork: Final = fork
        self._hs: Final = fork.hs
        self._hops: Final = hops
        "Not tried yet."
        self._within: Final = fork.server.request.to_tag != ""
        "Whether the request is within a dialog."
        self._pending: Final[dict[ClientTransaction, Hop]] = {}
        self._tried: Final[set[Flow]] = set()
        self._cancelled: Final[set[ClientTransaction]] = set()
        self._heard: ClientTransaction | None = None
        "The copy that got a provisional response."
        self._locating = False
        self._patience: Timer | None = None
        self._ringing_until = 0.0
        self._ringer: Timer | None = None
        self._ended = False
        self._status = 0
        "Of the best final response so far."
        self._response: Response | None = None
        self._given_up = False

    def start(self, now: float) -> None:
        """Try the first hop."""
        self._next(now)
        if self._fork.method == "INVITE" and not self._ended:
            self._ringing_until = now + TIMER_C
            self._ringer = self._hs.timers.set(self._ringing_until, self._ring_no_longer)

    def cancel(self, now: float) -> None:
        """No answer is wanted any more. What has not spoken yet is cancelled when it does (§9.1)."""
        if self._ended or self._given_up:
            return
        self._given_up = True
        self._hops.clear()
        self._stop_waiting()
        if self._fork.method == "INVITE":
            for client in list(self._pending):
                self._cancel(client, now)
        if not self._pending and not self._locating:
            self._end(487, None, now)

    # ---------------------------------------------------------------------------------------------------- forward

    def _next(self, now: float) -> None:
        """Try the next hop; without one, and nothing under way, the leg has failed."""
        self._stop_waiting()
        while self._hops:
            hop = self._hops.pop(0)
            if hop.flow is None:
                self._locate(hop, now)
                return
            self._send(hop, hop.flow, now)
            return
        if not self._pending and not self._locating:
            self._end(self._status or 480, self._response, now)

    def _send(self, hop: Hop, flow: Flow, now: float) -> None:
        hs = self._hs
        branch = hs.late.branch(self._fork.server.request, self._fork.mark, now)
        data = self._fork.outgoing.encode(hs.domain.via(flow, branch), hop)
        client = hs.layer.request(self, branch, self._fork.method, data, flow, now)
        self._pending[client] = hop
        self._tried.add(flow)
        if hop.watched or (self._hops and flow.reliable):
            self._be_patient(now)

    def _be_patient(self, now: float) -> None:
        limit = self._hs.settings.path_timeout
        self._patience = self._hs.timers.set(now + (min(limit, WITHIN_DIALOG) if self._within else limit), self._silent)

    def _locate(self, hop: Hop, now: float) -> None:
        assert hop.next_uri is not None
        self._locating = True

        def located(targets: list[Target], at: float) -> None:
            self._locating = False
            if self._given_up or self._ended:
                if not self._pending:
                    self._end(487, None, at)
                return
            near = self._fork.server.flow.local
            found = []
            for target in targets:
                flow = self._hs.domain.flow_to(target.transport, target.host, target.port, near)
                if flow is not None:
                    found.append(hop._replace(flow=flow))
            self._hops[:0] = found
            self._next(at)

        self._hs.find_targets(hop.next_uri, located, now, self._fork.outgoing.size > LARGEST_DATAGRAM)

    def _silent(self, now: float) -> None:
        """Not even a provisional response: try the next Priority as well."""
        self._patience = None
        if not self._hops:
            self._look_again(now)
        if not self._hops:
            if self._pending:
                self._be_patient(now)
            return
        if not self._within:  # else it may be the phone that takes its time: `_outrun` tells
            for client, hop in self._pending.items():
                self._suspect(client.flow, hop, "no answer", now)
        self._next(now)

    def _look_again(self, now: float) -> None:
        """Flows that the SIP-NMS has registered since: it may have come by a new address (MH-2)."""
        wall = self._hs.wall(now)
        for hop in list(self._pending.values()):
            if hop.watched:
                flows = self._hs.proxy.flows_of(hop.gateway, wall)
                self._hops.extend(hop._replace(flow=flow) for flow in flows if flow not in self._tried)
                return

    def _suspect(self, flow: Flow, hop: Hop, why: str, now: float) -> None:
        if hop.watched:
            self._hs.suspect(flow, why, self._fork.server.request.call_id, now)

    def _ring_no_longer(self, now: float) -> None:
        """Timer C (§16.8)."""
        if self._ended or self._given_up:
            return
        if now < self._ringing_until:
            self._ringer = self._hs.timers.set(self._ringing_until, self._ring_no_longer)
        else:
            self.cancel(now)

    # --------------------------------------------------------------------------------------------------- backward

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """A response to one of the copies."""
        status = response.status
        if status < 200:
            self._provisional(client, response, now)
            return
        hop = self._pending.pop(client, None)
        spoke = self._heard is client
        if spoke:
            self._heard = None
        if status < 300:
            self._stop_waiting()
            self._hops.clear()
            self._outrun(client, now)
            if client.method == "INVITE":
                self._hs.remember_call(response.call_id, client.flow, now)
            first = not self._ended
            self._ended = True
            self._ring_stops()
            self._fork.success(self, response, first, now)
            return
        if self._ended or hop is None:
            return
        if hop.watched and status == FLOW_FAILED:
            self._suspect(client.flow, hop, "430 Flow Failed", now)
        self._better(status, response)
        if self._hops and status in NOT_THIS_WAY:
            self._next(now)
        elif not self._pending and not self._locating:
            self._end(self._status, self._response, now)
        elif self._heard is not None or status == FLOW_FAILED or (self._locating and status in NOT_THIS_WAY):
            pass  # another copy is the one that counts, or may be
        elif self._pending and not spoke and is_known_already(status, self._within):
            self._fetch(client.flow, now)
        else:
            self._hops.clear()
            self._outrun(client, now)
            self._end(self._status, self._response, now)

    def _fetch(self, flow: Flow, now: float) -> None:
        """The SIP-NMS has a copy, and its answer does not come: the same transaction asks for it by the flow that
        works. There it is a retransmission (§17.2.3), and its answer is repeated (as in `flow_changes.py`)."""
        self._stop_waiting()
        self._hops.clear()
        for client, hop in self._pending.items():
            if hop.watched and client.state < State.PROCEEDING:
                client.move(flow, now)

    def _outrun(self, winner: ClientTransaction, now: float) -> None:
        """One copy has been answered. Others may only be late: those of an INVITE are cancelled when they speak."""
        for client, hop in list(self._pending.items()):
            if client is winner:
                continue
            if self._within and client.state < State.PROCEEDING and client.flow != winner.flow:
                self._suspect(client.flow, hop, "no answer", now)
            if client.state is State.PROCEEDING and client.method == "INVITE":
                self._cancel(client, now)
            elif client.method == "INVITE" or not winner.finished:
                client.hush()
            else:
                del self._pending[client]
                client.abandon()

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """No final response to one of the copies: 408 or 503 of our own making."""
        hop = self._pending.pop(client, None)
        if self._ended or hop is None:
            return
        if self._heard is client:
            self._heard = None
        self._suspect(client.flow, hop, "the transport failed" if status == 503 else "no answer", now)
        self._better(480 if status == 503 else status, None)
        if self._hops:
            self._next(now)
        elif not self._pending and not self._locating:
            self._end(487 if self._given_up and client in self._cancelled else self._status, self._response, now)

    def _provisional(self, client: ClientTransaction, response: Response, now: float) -> None:
        if self._ended or self._given_up:
            self._cancel(client, now)
            return
        if self._heard is None:
            self._heard = client
            self._stop_waiting()
            self._hops.clear()
            self._outrun(client, now)
        elif self._heard is not client:
            self._cancel(client, now)
            return
        if response.status > 100:
            self._ringing_until = now + TIMER_C
            self._fork.provisional(response, now)

    def _better(self, status: int, response: Response | None) -> None:
        """Keep what says most about the request rather than about one of the ways to it."""
        if not self._status or weight(status, response) >= weight(self._status, self._response):
            self._status, self._response = status, response

    def _cancel(self, client: ClientTransaction, now: float) -> None:
        """CANCEL one copy, if it has spoken; it counts as cancelled when it stays silent (§9.1)."""
        if not isinstance(client, InviteClient) or client.state is not State.PROCEEDING or client in self._cancelled:
            return
        self._cancelled.add(client)
        hs = self._hs
        hs.layer.request(NOBODY, client.branch, "CANCEL", client.cancel(), client.flow, now)
        hs.timers.set(now + TIMEOUT, lambda at: client.give_up(408, at))

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _ring_stops(self) -> None:
        """Timer C has nothing left to end; the queue must not hold the whole request for its three minutes."""
        if self._ringer is not None:
            self._ringer.cancel()
            self._ringer = None

    def _end(self, status: int, response: Response | None, now: float) -> None:
        if not self._ended:
            self._ended = True
            self._ring_stops()
            self._stop_waiting()
            self._fork.failed(status, response, now)

    @property
    def ended(self) -> bool:
        """Whether the final response of this leg has been handed up."""
        return self._ended
