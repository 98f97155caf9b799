"""Matches messages to transactions (RFC 3261 §17.1.3, §17.2.3, §9.2) and owns the node's timer queue and outbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, Response, reply
from sipnemo.sip.timers import T1, T4, TIMEOUT, TimerQueue
from sipnemo.sip.transaction import (
    ClientTransaction,
    ClientUser,
    InviteClient,
    InviteServer,
    NonInviteClient,
    NonInviteServer,
    ServerTransaction,
)

MAGIC = "z9hG4bK"
LATE = 0.25
"Seconds that transactions may linger longer than they must, so that many end at a time."
MOST_SERVERS = 100_000
"Server transactions at a time: each lasts 32 s, so this is 1,500 calls a second."


class ServerUser(Protocol):
    """Who answers requests: the transaction user above the layer."""

    def on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A new request that is neither ACK nor CANCEL."""

    def on_overload(self, request: Request, flow: Flow) -> None:
        """A new request for which there is no room: nothing of it may be kept."""

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """An ACK that belongs to no server transaction: of a 2xx, end to end."""

    def on_cancel(self, server: ServerTransaction, cancelled: ServerTransaction, now: float) -> None:
        """A CANCEL; `server` has been answered 200, `cancelled` is the INVITE it names."""

    def on_repeated(self, server: ServerTransaction, request: Request, flow: Flow, now: float) -> None:
        """The request of a server transaction has come again, or its CANCEL, perhaps over another flow."""

    def on_stray(self, response: Response, flow: Flow, now: float) -> None:
        """A response that belongs to no client transaction."""


class TransactionLayer:
    """All transactions of one node."""

    def __init__(self, user: ServerUser) -> None:
        self.user = user
        self.timers = TimerQueue()
        self.repeats = self.timers.line(T1)
        "Transactions before their first repetition: Timers A, E and G."
        self.patience = self.timers.line(TIMEOUT)
        "Those that are never repeated, until they are given up: Timers B, F and H."
        self.rest = self.timers.line(TIMEOUT, LATE)
        "Those that only absorb repetitions: Timers D, J, L and M."
        self.short_rest = self.timers.line(T4, LATE)
        "Timers I and K."
        self.out: list[Any] = []
        "The actions of the input at hand, the layers' and the roles' in one order; the node takes it after each input."
        self.clients: dict[str, ClientTransaction] = {}
        self.servers: dict[str, ServerTransaction] = {}
        self.heard_on: Flow | None = None
        "How the response at hand has come."
        self.most_servers = MOST_SERVERS
        self.tag: Callable[[str], str] = lambda _key: ""
        "The To tag of our responses within the server transaction with this key."

    # ------------------------------------------------------------------------------------------------- clients

    def request(
        self, user: ClientUser, branch: str, method: str, data: bytes, flow: Flow, now: float
    ) -> ClientTransaction:
        """Send a request whose topmost Via carries this branch."""
        make = InviteClient if method == "INVITE" else NonInviteClient
        client = make(self, user, branch, method, data, flow)
        self.clients[client.key] = client
        client.start(now)
        return client

    def receive_response(self, response: Response, flow: Flow, now: float) -> None:
        """Hand a response to its client transaction (§17.1.3)."""
        client = self.clients.get(response.branch + response.cseq_method)
        if client is None:
            self.user.on_stray(response, flow, now)
        else:
            self.heard_on = flow
            client.receive(response, now)

    def transport_failed(self, flow: Flow, now: float) -> None:
        """Nothing sent on this flow arrives: its pending client transactions fail at once (§8.1.3.1)."""
        for client in [client for client in self.clients.values() if client.flow == flow and not client.finished]:
            client.give_up(503, now)

    def forget_client(self, client: ClientTransaction) -> None:
        """Called by a transaction that terminates."""
        self.clients.pop(client.key, None)

    # ------------------------------------------------------------------------------------------------- servers

    def receive_request(self, request: Request, flow: Flow, now: float) -> None:
        """Match a request to its server transaction, or begin one (§17.2.3)."""
        method = request.method
        key = server_key(request, "INVITE" if method == "ACK" else method)
        server = self.servers.get(key)
        if method == "ACK":
            if server is None or server.state >= 5:  # an ACK of a 2xx has a branch of its own; RFC 2543's has not
                self.user.on_ack(request, flow, now)
            else:
                server.acknowledged(now)
            return
        if server is not None:
            self.user.on_repeated(server, request, flow, now)
            server.repeated(now)
            return
        makes_room = method == "CANCEL" and server_key(request, "INVITE") in self.servers
        if len(self.servers) >= self.most_servers and not makes_room:
            self.user.on_overload(request, flow)
            return
        make = InviteServer if method == "INVITE" else NonInviteServer
        server = make(self, key, request, flow)
        self.servers[key] = server
        if method == "CANCEL":
            self._cancel(server, request, now)
        else:
            self.user.on_request(server, request, now)

    def _cancel(self, server: ServerTransaction, request: Request, now: float) -> None:
        key = server_key(request, "INVITE")
        cancelled = self.servers.get(key)
        tag = self.tag(key)  # the one that the INVITE's own final response gets (§9.2)
        if cancelled is None:
            server.respond(481, reply(request, 481, to_tag=tag), now)
            return
        self.user.on_repeated(cancelled, request, server.flow, now)
        server.respond(200, reply(request, 200, to_tag=tag), now)
        self.user.on_cancel(server, cancelled, now)

    def forget_server(self, server: ServerTransaction) -> None:
        """Called by a transaction that terminates."""
        self.servers.pop(server.key, None)


def server_key(request: Request, method: str) -> str:
    """What makes two requests the same transaction: branch, sent-by and method; RFC 2543 clients have no cookie."""
    branch = request.branch
    if len(branch) > len(MAGIC) and branch.startswith(MAGIC):
        return f"{branch}|{request.sent_by}|{method}"
    via = request.value("via")
    to_tag = "" if method in ("INVITE", "CANCEL") else request.to_tag
    return f"{request.uri}|{to_tag}|{request.from_tag}|{request.call_id}|{request.cseq}|{via}|{method}"
