"""The SIP-HS: which story does this input belong to? REGISTER: `registrar.py`; everything else: `proxy.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sipnemo.roles.endpoint import Endpoint
from sipnemo.roles.hs.access import Access, DeniedError
from sipnemo.roles.hs.bindings import TABLE, BindingList
from sipnemo.roles.hs.domain import Domain
from sipnemo.roles.hs.flow_changes import FlowChanges
from sipnemo.roles.hs.fork import Fork
from sipnemo.roles.hs.late import LateAnswers
from sipnemo.roles.hs.proxy import Proxy
from sipnemo.roles.hs.registrar import Registrar
from sipnemo.roles.hs.settings import HsSettings
from sipnemo.roles.hs.status import report
from sipnemo.roles.node import (
    Action,
    Closed,
    Command,
    Count,
    Environment,
    Finished,
    Input,
    Link,
    Listen,
    Notice,
    Received,
    Reply,
    Send,
    SendFailed,
    Stop,
)
from sipnemo.sip import stun
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, Response
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import TIMEOUT
from sipnemo.sip.transaction import ServerTransaction
from sipnemo.sip.uri import Uri, UriError, parse

METHODS: Final = (
    "ACK, BYE, CANCEL, INFO, INVITE, MESSAGE, NOTIFY, OPTIONS, PRACK, PUBLISH, REFER, REGISTER, SUBSCRIBE, UPDATE"
)
_COUNTS: Final = {method: Count("requests", (method,)) for method in METHODS.split(", ")}
_OTHER: Final = Count("requests", ("other",))
_CREDENTIALS: Final = frozenset(("authorization", "proxy-authorization"))
FOR_ANYBODY: Final = (400, 403, 404, 405, 416, 420, 483)
"Refusals that would be the same for the same request again."
SUSPECT_FOR: Final = 30.0
"How long a flow that did not answer comes last, unless something is heard from it before."

NEW_FOR: Final = 120.0
"Seconds after its start for which a SIP-HS says so: every SIP-NMS that can reach it has probed it by then."


class HomeServer(Endpoint):
    """One SIP-HS: registrar, store of bindings, and proxy for SIP-NMSs and users."""

    def __init__(self, settings: HsSettings, environment: Environment) -> None:
        super().__init__(environment, settings.limits)
        self.settings: Final = settings
        self.domain: Final = Domain(settings)
        self.access: Final = Access(settings, environment.seed)
        self.bindings: Final = BindingList(settings.accounts, settings.users)
        self.registrar: Final = Registrar(self)
        self.proxy: Final = Proxy(self)
        self.late: Final = LateAnswers(self)
        self.flows: Final = FlowChanges(self)
        self.connected: Final[set[Flow]] = set()
        "Connections that bindings came over and that are open."
        self.suspects: Final[set[Flow]] = set()
        "Flows of SIP-NMSs that did not answer and come last for a while."
        self.calls: Final[dict[str, Flow]] = {}
        "Calls answered a moment ago, and over which flow: where their ACK goes."
        self._sources: dict[Flow, float] = {}
        "Where authenticated REGISTERs came from, and until when (wall clock) that counts."
        self._branches: Final = self.ids.branch()[:15]
        "How the branch parameters of this process begin."
        self._unreadable: Final = self.bindings.restore(environment.stored.get(TABLE, {}), settings.listen)
        self._life: Final = f"sipnemo {self.ids.token('life')[:8]}"
        "The name of this run of the process: SIP-NMSs that have not met it yet look whether it knows them (R12)."
        self._told_until = 0.0
        "Until when probes are answered with it; later it would be paid for on metered links and tell nothing."
        self.timers.set(0.0, self._begin)

    def wall(self, now: float) -> float:
        """Seconds since 1970 at this instant."""
        return self.environment.wall_clock + now

    def handle(self, input: Input, now: float) -> list[Action]:
        """Take one input in and return everything that follows from it, in order."""
        if type(input) is SendFailed:
            self.flows.broken(input.flow, now)
        elif self.suspects and type(input) is Received:
            self.suspects.discard(input.flow)
        return super().handle(input, now)

    def _begin(self, now: float) -> None:
        self._told_until = now + NEW_FOR
        for local in self.settings.listen:
            self.act(Listen(local))
        for user in self._unreadable:
            self.log("error", f"The stored bindings of {user} cannot be read and are not used")
        count = 0
        for record in self.bindings:
            self.registrar.watch(record)
            count += len(record.bindings)
        self.log("info", f"Home server for {self.domain.text}, {count} bindings restored")
        self.act(Notice("ready"))

    # ---------------------------------------------------------------------------------------------------- messages

    def on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A new request."""
        method = request.method
        self.act(_COUNTS.get(method, _OTHER))
        try:
            if method == "REGISTER" and self._names_us(request):
                self.registrar.register(server, request, now)
            elif not self.proxy.forward(server, request, now):
                self._serve(server, now)
        except SipError as error:
            self._refuse(server, error, now)

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """An ACK of a 2xx."""
        self.proxy.acknowledge(request, flow, now)

    def on_cancel(self, server: ServerTransaction, cancelled: ServerTransaction, now: float) -> None:
        """The caller hangs up before the answer."""
        if isinstance(cancelled.user, Fork):
            cancelled.user.cancel(now)

    def on_repeated(self, server: ServerTransaction, request: Request, flow: Flow, now: float) -> None:
        """A request that a SIP-NMS has sent again by another of its paths."""
        self.flows.followed(server, request, flow, now)

    def on_stray(self, response: Response, flow: Flow, now: float) -> None:
        """A response without transaction."""
        self.late.pass_on(response, flow, now)

    def on_stun(self, data: bytes, flow: Flow, now: float) -> None:
        """A liveness probe on a SIP flow (RFC 5626 §8)."""
        answer = stun.answer(data, flow.remote, self._life if now < self._told_until else "")
        if answer is not None:
            self.act(Send(answer, flow))

    def on_input(self, input: Input, now: float) -> None:
        """Everything but messages."""
        match input:
            case SendFailed(flow, _) | Closed(flow) if flow.reliable:
                self.connected.discard(flow)
            case Link(name, _, _, addresses):
                self.domain.link_changed(name, addresses)
            case Command(ticket, name, arguments):
                self.act(Reply(ticket, report(self, name, arguments, now)))
            case Stop():
                self.act(Finished())
            case _:
                pass

    # ------------------------------------------------------------------------------------------ for the two stories

    def find_targets(
        self, uri: Uri, then: Callable[[list[Target], float], None], now: float, large: bool = False
    ) -> None:
        """Where a request to this URI goes; a large one by a stream, if that can be (§18.1.1)."""
        transports = self.domain.transports
        if not large or "TCP" not in transports or uri.transport or uri.scheme != "sip":
            self.locate(uri, then, now, transports)
            return

        def by_stream(found: list[Target], at: float) -> None:
            self.locate(uri, lambda others, later: then(found + others, later), at, transports)

        self.locate(uri.with_param("transport", "tcp"), by_stream, now, transports)

    def reachable(self, flow: Flow) -> None:
        """A binding has come over this flow."""
        if flow.reliable:
            self.connected.add(flow)

    def registered_from(self, flow: Flow, until: float) -> None:
        """An authenticated REGISTER came from there."""
        self._sources[flow] = until
        if len(self._sources) > 4096 and len(self._sources) & 1023 == 0:
            self._sources = {known: end for known, end in self._sources.items() if end > until - 86400}

    def knows(self, flow: Flow, now: float) -> bool:
        """Whether this is where somebody registered here sends from."""
        return self._sources.get(flow, 0.0) > self.wall(now)

    def knows_host(self, host: str, now: float) -> bool:
        """Whether somebody registered here sends from this address: over any connection."""
        wall = self.wall(now)
        return any(end > wall for flow, end in self._sources.items() if flow.remote[0] == host)

    def serves(self, request: Request, flow: Flow, now: float) -> bool:
        """Whether a request within a dialog, to somebody elsewhere, comes from one of ours: where somebody is
        registered, or whence this call was answered a moment ago (over a new connection, perhaps)."""
        answered = self.calls.get(request.call_id)
        return self.knows(flow, now) or (answered is not None and answered.remote[0] == flow.remote[0])

    def suspect(self, flow: Flow, why: str, call_id: str, now: float) -> None:
        """A flow did not do its duty: others come before it until something is heard from it."""
        if flow not in self.suspects:
            self.log("warning", f"{why} from {flow.remote[0]}:{flow.remote[1]}: the next Priority is tried", call_id)
            self.act(Count("flow_failures", (why.replace(" ", "_").lower(),)))
            self.suspects.add(flow)
            self.timers.set(now + SUSPECT_FOR, lambda _now: self.suspects.discard(flow))

    def remember_call(self, call_id: str, flow: Flow, now: float) -> None:
        """A 2xx to an INVITE came over this flow."""
        if call_id not in self.calls:
            self.timers.set(now + TIMEOUT, lambda _now: self._forget_call(call_id))
        self.calls[call_id] = flow

    def has_passed(self, request: Request, mark: str) -> bool:
        """Whether the request, just as it is, has been here before (§16.3 item 4, RFC 5393)."""
        if request.names.count("via") == 1 and "," not in request.value("via"):
            return False
        return any(
            f"branch={self._branches}" in via and via.partition("branch=")[2].partition(";")[0].endswith(mark)
            for via in request.values("via")
        )

    # --------------------------------------------------------------------------------------------------- internals

    def _forget_call(self, call_id: str) -> None:
        self.calls.pop(call_id, None)

    def _names_us(self, request: Request) -> bool:
        try:
            uri = parse(request.uri)
        except UriError:
            return False
        return uri.is_sip and self.domain.is_ours(uri)

    def _serve(self, server: ServerTransaction, now: float) -> None:
        """A request for this server itself."""
        request = server.request
        if request.to_tag:
            raise SipError(481)
        if request.method != "OPTIONS":
            raise SipError(405, headers=("Allow: OPTIONS, REGISTER",))
        required = request.values("require")
        if required:
            raise SipError(420, headers=(f"Unsupported: {', '.join(required)}",))
        self.respond(server, 200, now, headers=(f"Allow: {METHODS}", "Accept: */*", "Supported: outbound"))

    def _refuse(self, server: ServerTransaction, error: SipError, now: float) -> None:
        request = server.request
        self.act(Count("requests_refused", (str(error.status),)))
        if isinstance(error, DeniedError):
            if error.cause:
                self.act(Count("authentication_failures", (error.outcome.value,)))
                self.log("info", f"Credentials refused: {error.cause}", request.call_id, source=server.flow.remote[0])
        elif error.status not in (480, 423):
            self.log("info", f"{request.method} {request.uri} refused: {error}", request.call_id)
        self.respond(server, error.status, now, reason=error.reason, headers=error.headers)
        anonymous = not _CREDENTIALS.intersection(request.names)
        if isinstance(error, DeniedError) or (anonymous and error.status in FOR_ANYBODY):
            server.terminate()  # who it was is not proven: nothing is kept, or repeated to a forged address (§8.2.7)
