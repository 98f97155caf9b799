"""What every SIP node is made of: parse, answer what is malformed, match transactions, locate servers.

A role derives from `Endpoint` and fills in the `on_…` methods; `handle` and `deadline` are then complete.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from sipnemo.roles.node import (
    Action,
    Answer,
    Count,
    Counted,
    Environment,
    Input,
    Log,
    Lookup,
    Received,
    Send,
    SendFailed,
    Stored,
    Tick,
)
from sipnemo.sip.errors import ParseError, SipError
from sipnemo.sip.flow import Flow, Local
from sipnemo.sip.ids import Ids
from sipnemo.sip.message import Request, Response, reply
from sipnemo.sip.parser import LIMITS, Limits, parse
from sipnemo.sip.server_location import Located, Locator, Question, Search, Target, literal_target
from sipnemo.sip.timers import NEVER
from sipnemo.sip.transaction import ClientTransaction, ClientUser, ServerTransaction
from sipnemo.sip.transaction_layer import TransactionLayer
from sipnemo.sip.uri import Uri

RETRY_AFTER = 10
"Seconds for which a caller shall leave us alone when we are overloaded."
MOVED = ";moved="
"Via parameter of ours (§25.1 via-extension): how often a request has been moved to another path."
LARGEST_DATAGRAM = 1300
"RFC 3261 §18.1.1: a request above this goes over a congestion-controlled transport when there is one."


class Builder(Protocol):
    """Makes the octets of one request for one target."""

    def __call__(self, target: Target, branch: str) -> tuple[bytes, Flow] | None:
        """The request with this branch in its topmost Via, and where it goes; None: this target cannot be reached."""


class Endpoint:
    """One node's SIP machinery; sans-IO."""

    def __init__(self, environment: Environment, limits: Limits = LIMITS) -> None:
        self.environment = environment
        self.limits = limits
        self.ids = Ids(environment.seed)
        self.layer = TransactionLayer(self)
        self.layer.tag = self.ids.token
        self.timers = self.layer.timers
        self.locator = Locator(self.ids.chance)
        self._tickets = 0
        self._waiting: dict[int, Callable[[Any, float], None]] = {}

    # ------------------------------------------------------------------------------------------ the shell's side

    @property
    def deadline(self) -> float | None:
        """When `handle(Tick(), now)` has something to do."""
        at = self.timers.next
        return at if at != NEVER else None

    def handle(self, input: Input, now: float) -> list[Action]:
        """Take one input in and return everything that follows from it, in order."""
        if type(input) is Received:
            self._receive(input.data, input.flow, now)
        elif type(input) is SendFailed:
            self.on_send_failed(input.flow, now)
            self.on_input(input, now)
        elif isinstance(input, Answer | Counted | Stored):
            self._answered(input.ticket, input, now)
        elif type(input) is not Tick:
            self.on_input(input, now)
        if now >= self.timers.next:
            self.timers.fire(now)
        actions: list[Action] = self.layer.out
        self.layer.out = []
        return actions

    # ---------------------------------------------------------------------------------------- the role fills in

    def on_input(self, input: Input, now: float) -> None:
        """Everything that is neither a SIP message nor DNS; default: ignored."""

    def on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A new request; raise SipError to answer it. ACK and CANCEL do not come this way."""
        raise SipError(405)

    def on_send_failed(self, flow: Flow, now: float) -> None:
        """Nothing that is sent on this flow arrives; default: its requests fail."""
        self.layer.transport_failed(flow, now)

    def on_overload(self, request: Request, flow: Flow) -> None:
        """Too many requests are being served: this one is refused, and nothing of it kept (§8.2.7)."""
        self.act(Count("requests_overload"))
        tag = self.ids.token(request.branch or "overload")
        self.act(Send(reply(request, 503, to_tag=tag, headers=(f"Retry-After: {RETRY_AFTER}",)), flow))

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """An ACK of a 2xx; default: absorbed."""

    def on_cancel(self, server: ServerTransaction, cancelled: ServerTransaction, now: float) -> None:
        """`cancelled` shall end with 487; the CANCEL itself has been answered."""

    def on_repeated(self, server: ServerTransaction, request: Request, flow: Flow, now: float) -> None:
        """A request has come again, or is cancelled, over another flow; default: it is answered where it was."""

    def on_stray(self, response: Response, flow: Flow, now: float) -> None:
        """A response without a transaction; default: absorbed."""

    def on_stun(self, data: bytes, flow: Flow, now: float) -> None:
        """A STUN message on a SIP socket (RFC 5626 §8); default: absorbed."""

    # -------------------------------------------------------------------------------------------- what it offers

    def act(self, action: Action) -> None:
        """Put an action into the outbox."""
        self.layer.out.append(action)

    def log(self, level: str, text: str, call_id: str = "", **fields: Any) -> None:
        """One line for people."""
        self.layer.out.append(Log(level, text, call_id, fields))

    def ticket(self, then: Callable[[Any, float], None]) -> int:
        """A ticket for a slow action; `then(input, now)` is called when its answer comes."""
        self._tickets += 1
        self._waiting[self._tickets] = then
        return self._tickets

    def respond(
        self,
        server: ServerTransaction,
        status: int,
        now: float,
        *,
        reason: str = "",
        to_tag: str | None = None,
        headers: tuple[str, ...] = (),
        body: str = "",
    ) -> None:
        """Answer a request with a response of our own; every status but 100 gets a To tag (§8.2.6.2)."""
        if to_tag is None:
            to_tag = "" if status == 100 or server.request.to_tag else self.ids.token(server.key)
        data = reply(server.request, status, reason, to_tag=to_tag, headers=headers, body=body)
        server.respond(status, data, now)

    def locate(
        self,
        uri: Uri,
        then: Callable[[list[Target], float], None],
        now: float,
        transports: tuple[str, ...] = ("UDP", "TCP", "TLS"),
    ) -> None:
        """Where a request to this URI goes (RFC 3263), best first; an empty list when nowhere. May call at once."""
        literal = literal_target(uri, transports)
        if literal is not None:
            then([literal], now)
            return
        host = uri.param("maddr") or uri.host
        found = self.locator.locate(host.strip("[]"), uri.port, uri.transport, uri.scheme, transports, (4, 6), now)
        if isinstance(found, Located):
            then(list(found.targets), now)
        else:
            self._ask(found, found.questions, then)

    def _ask(
        self, search: Search, questions: tuple[Question, ...], then: Callable[[list[Target], float], None]
    ) -> None:
        for question in questions:

            def answered(answer: Answer, at: float, question: Question = question) -> None:
                following = search.feed(question, answer.records, answer.ttl, at)
                if isinstance(following, Located):
                    then(list(following.targets), at)
                else:
                    self._ask(search, following, then)

            self.act(Lookup(self.ticket(answered), question.name, question.kind))

    def attempt(self, user: ClientUser, method: str, targets: list[Target], build: Builder, now: float) -> Attempts:
        """Send a request to the first target that takes it (RFC 3263 §4.3)."""
        attempts = Attempts(self, user, method, targets, build)
        attempts.start(now)
        return attempts

    # ------------------------------------------------------------------------------------------------- internals

    def _answered(self, ticket: int, input: Input, now: float) -> None:
        then = self._waiting.pop(ticket, None)
        if then is not None:
            then(input, now)

    def _receive(self, data: bytes, flow: Flow, now: float) -> None:
        if len(data) <= 4 and not data.strip(b"\r\n\0"):
            return  # keep-alive
        if data[0] < 4:
            self.on_stun(data, flow, now)
            return
        try:
            message = parse(data, self.limits)
        except ParseError as error:
            self._malformed(error, flow, now)
            return
        if type(message) is Request:
            self.layer.receive_request(message, stamp_source(message, flow), now)
        elif type(message) is Response:
            self.layer.receive_response(message, flow, now)

    def _malformed(self, error: ParseError, flow: Flow, now: float) -> None:
        """Answer statelessly, if an answer can be addressed; never keep anything of it."""
        self.act(Count("malformed_messages", (str(error.status),)))
        if isinstance(error.message, Request):
            back = stamp_source(error.message, flow)
            tag = self.ids.token(error.message.branch or "malformed")
            self.act(Send(reply(error.message, error.status, error.reason, to_tag=tag), back))


class Attempts:
    """One request, tried at one target after the other until one answers with something but 503."""

    __slots__ = ("_build", "_endpoint", "_left", "_method", "client", "target", "user")

    def __init__(
        self, endpoint: Endpoint, user: ClientUser, method: str, targets: list[Target], build: Builder
    ) -> None:
        self._endpoint = endpoint
        self.user = user
        "Who is told of the answer."
        self._method = method
        self._left = targets
        self._build = build
        self.client: ClientTransaction | None = None
        "The transaction at hand."
        self.target: Target | None = None

    def start(self, now: float) -> None:
        """Try the next target; without one, fail with 503 through the user."""
        while self._left:
            self.target = self._left.pop(0)
            branch = self._endpoint.ids.branch()
            built = self._build(self.target, branch)
            if built is not None:
                data, flow = built
                self.client = self._endpoint.layer.request(self, branch, self._method, data, flow, now)
                return
        if self.client is not None:
            self.user.on_failure(self.client, 503, now)
            return
        nowhere = Flow(Local("UDP", "", 0), ("", 0))
        unsent = ClientTransaction(self._endpoint.layer, self.user, "", self._method, b"", nowhere)
        self.user.on_failure(unsent, 503, now)

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """503 means this server, not the request (RFC 3263 §4.3)."""
        if response.status == 503 and self._left:
            self.start(now)
            return
        if response.status >= 200 and client.user is self:
            client.user = self.user  # what the attempts hold need not wait for the transaction's end
        self.user.on_response(client, response, now)

    def restart(self, now: float) -> None:
        """Send it anew: what carried it is dead, and the builder knows a better way by now."""
        if self.client is not None and self.target is not None and not self.client.finished:
            self.client.abandon()
            self._left.insert(0, self.target)
            self.start(now)

    def again(self, now: float) -> None:
        """Send it anew to the same target; what becomes of the transaction before is somebody else's care."""
        if self.target is not None:
            self._left.insert(0, self.target)
            self.start(now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """No answer from this target."""
        if self._left:
            self.start(now)
        else:
            self.user.on_failure(client, status, now)


def host_text(host: str) -> str:
    """An address literal as URIs and Via write it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def via_line(flow: Flow, branch: str) -> str:
    """Our Via header line for a request on this flow; rport asks for a symmetric response (RFC 3581)."""
    return _via_start(flow.local) + branch


@lru_cache(maxsize=256)
def _via_start(local: Local) -> str:
    return f"Via: SIP/2.0/{local.transport} {host_text(local.host)}:{local.port};rport;branch="


def stamp_source(request: Request, flow: Flow) -> Flow:
    """Write the packet's source into the topmost Via (§18.2.1, RFC 3581); return where responses go (§18.2.2)."""
    at = request.names.index("via")
    line = request.lines[at]
    host, port = flow.remote
    if ";rport" not in line:
        if request.sent_by == f"{host}:{port}":
            return flow
    elif ";rport=" not in line and "," not in line:
        request.lines[at] = line.replace(";rport", f";rport={port};received={host}", 1)
        return flow
    first, comma, rest = line.partition(",")
    _, semicolon, params = first.partition(";")
    params = semicolon + params
    if ";rport" in params and ";rport=" not in params:
        stamped = first.replace(";rport", f";rport={port};received={host}", 1)
        request.lines[at] = stamped + comma + rest
        return flow
    if request.sent_by == f"{host}:{port}":
        return flow
    sent_host, sent_port = split_host_port(request.sent_by)
    if not flow.reliable:
        flow = Flow(flow.local, (host, sent_port or 5060))
    if sent_host != host:
        request.lines[at] = f"{first};received={host}{comma}{rest}"
    return flow


def split_host_port(text: str) -> tuple[str, int]:
    """Host and port of a sent-by or hostport; port 0 when there is none; IPv6 without its brackets."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
    return host, int(port) if port.isdecimal() and len(port) < 6 and int(port) < 65536 else 0


_USUAL_FORWARDS = {f"Max-Forwards: {number}": number - 1 for number in range(1, 256)}


def forwards(request: Request) -> int:
    """How many hops a forwarded copy has left (§16.3 item 3, §16.6 item 3); 70 where none is said."""
    names = request.names
    if "max-forwards" not in names:
        return 70
    line = request.lines[names.index("max-forwards")]
    left = _USUAL_FORWARDS.get(line)
    if left is not None:
        return left
    text = request.value("max-forwards")
    if not text:
        return 70
    if not text.isdecimal() or not text.isascii() or int(text) > 255:
        raise SipError(400, "Malformed Max-Forwards header")
    left = int(text)
    if left == 0:
        raise SipError(483)
    return left - 1
