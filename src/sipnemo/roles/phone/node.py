"""The phone as one node: accounts, calls by dialog, commands; says whose story an input belongs to, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sipnemo.roles.endpoint import Endpoint, host_text
from sipnemo.roles.node import Command, Environment, Finished, Input, Listen, Notice, Reply, Stop
from sipnemo.roles.phone.call import Call, State
from sipnemo.roles.phone.dialog import Dialog, raw_values
from sipnemo.roles.phone.invited import Invited
from sipnemo.roles.phone.inviting import Inviting
from sipnemo.roles.phone.media import MediaAction, StreamOpened
from sipnemo.roles.phone.outgoing import Outgoing
from sipnemo.roles.phone.registration import Registration
from sipnemo.roles.phone.settings import Account, Settings
from sipnemo.sdp.multipart import find_sdp
from sipnemo.sip.digest_client import ClientAuth, Credentials
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow, Local
from sipnemo.sip.message import Message, Request, Response, parameter
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ServerTransaction
from sipnemo.sip.transaction_layer import MAGIC
from sipnemo.sip.uri import UriError
from sipnemo.sip.uri import parse as parse_uri

ALLOW: Final = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK, REFER, NOTIFY, INFO, MESSAGE"
SUPPORTED: Final = "100rel, replaces, timer"
_SDP_RANGES: Final = frozenset(("application/sdp", "application/*", "*/*"))
_EXTENSIONS: Final = frozenset(("100rel", "replaces", "timer"))

Progress = Callable[[int, str, float], None]


class User:
    """One account at work."""

    def __init__(self, account: Account) -> None:
        self.account = account
        credentials = Credentials(account.name, account.password)
        self.auth = ClientAuth(credentials) if account.password else None
        self.register_auth = ClientAuth(credentials) if account.password else None
        self.registration: Registration | None = None
        self.calls_to_make: list[str] = []


class Phone(Endpoint):
    """Many accounts and calls; see `settings.py` for what can be asked of it."""

    allow = ALLOW
    supported = SUPPORTED
    abilities = (f"Allow: {ALLOW}", f"Supported: {SUPPORTED}", "Accept: application/sdp")

    def __init__(self, settings: Settings, environment: Environment) -> None:
        super().__init__(environment)
        self.layer.tag = self._tag_of
        self.settings = settings
        self.users = {account.name: User(account) for account in settings.accounts}
        self.calls: dict[tuple[str, str], Call] = {}
        "By Call-ID and local tag: a phone that calls itself has two calls of one Call-ID."
        self.transports = tuple(local.transport for local in settings.locals)
        self.media_host = settings.locals[0].host
        self.proxy_route = _loose(settings.proxy)
        self._callers: dict[tuple[str, str], Call] = {}
        "Calls to us by Call-ID and remote tag, to know a merged request (RFC 3261 §8.2.2.2)."
        self._streams = 0
        self._goodbyes = 0
        self._stopping = False
        self._deregistering = False
        self.timers.set(0.0, self._begin)

    # ------------------------------------------------------------------------------------------------ the shell

    def on_input(self, input: Input | StreamOpened, now: float) -> None:
        """Commands, streams that are open, and the end."""
        match input:
            case StreamOpened(ticket, _):
                self._answered(ticket, input, now)  # type: ignore[arg-type]
            case Command(ticket, name, arguments):
                self.act(Reply(ticket, self._command(name, arguments, now)))
            case Stop():
                self._stopping = True
                for call in list(self.calls.values()):
                    call.hang_up(now, 480)
                self._go_on_stopping(now)
            case _:
                pass

    def ask(self, action: MediaAction) -> None:
        """Put an action for the RTP engine into the outbox."""
        self.layer.out.append(action)

    def notify(self, event: str, user: User, **fields: object) -> None:
        """A milestone for people, tests and the demo."""
        self.act(Notice(event, {"account": user.account.name, **fields}))

    def _begin(self, now: float) -> None:
        for local in self.settings.listens:
            self.act(Listen(local))
        for placed in self.settings.calls:
            self.users[placed.account].calls_to_make.append(placed.uri)
        for number, user in enumerate(self.users.values()):
            at = now + number * self.settings.start_every
            if self.settings.server:
                user.registration = Registration(self, user)
                self.timers.set(at, user.registration.start)
            elif user.calls_to_make:
                self.timers.set(at, lambda then, user=user: self.registered(user, then))  # type: ignore[misc]

    # ------------------------------------------------------------------------------------------ what stories use

    def registered(self, user: User, now: float) -> None:
        """This account can be reached: make the calls that waited for it."""
        calls, user.calls_to_make = user.calls_to_make, []
        for uri in calls:
            if not self._stopping:
                self.place(user, uri, now)

    def place(
        self,
        user: User,
        uri: str,
        now: float,
        headers: tuple[tuple[str, str], ...] = (),
        on_progress: Progress | None = None,
    ) -> Call:
        """Call somebody."""
        call = Call(self, user, self.ids.tag(), self.ids.tag(), uri, ours=True)
        call.on_progress = on_progress
        self.calls[call.call_id, call.local_tag] = call
        inviting = Inviting(call, uri, headers)
        call.setup = inviting
        inviting.start(now)
        return call

    def forget(self, call: Call, now: float) -> None:
        """A call has ended."""
        self.calls.pop((call.call_id, call.local_tag), None)
        for key in [key for key, known in self._callers.items() if known is call]:
            del self._callers[key]
        self._go_on_stopping(now)

    def say_goodbye(self, user: User, dialog: Dialog, now: float) -> None:
        """Send a BYE whose answer only matters for the end of the process."""

        def said(_response: Response, at: float) -> None:
            self._goodbyes -= 1
            self._go_on_stopping(at)

        self._goodbyes += 1
        request = dialog.request("BYE", dialog.next_cseq())
        Outgoing(self, user, request, dialog.next_cseq, said).send(now)

    def left(self, now: float) -> None:
        """A registration has been taken back."""
        self._go_on_stopping(now)

    def next_stream(self) -> int:
        """A number for a new stream."""
        self._streams += 1
        return self._streams

    def session_id(self) -> int:
        """For the o= line: unique enough, and far from overflow (RFC 8866 §5.2)."""
        return 1 + int(self.ids.chance() * (1 << 40))

    def flow_to(self, target: Target) -> Flow | None:
        """From which of our addresses a target is reached; None when we do not speak its transport or family."""
        for local in self.settings.locals:
            if local.transport == target.transport and (":" in local.host) == (":" in target.host):
                return Flow(local, (target.host, target.port))
        return None

    def contact(self, user: User, local: Local) -> str:
        """Our Contact on this address; the user part tells the accounts apart."""
        transport = "" if local.transport == "UDP" else f";transport={local.transport.lower()}"
        return f"<sip:{user.account.name}@{host_text(local.host)}:{local.port}{transport}>"

    def dialog_headers(self, user: User, server: ServerTransaction) -> tuple[str, ...]:
        """Header lines of a response that makes or refreshes a dialog (RFC 3261 §12.1.1)."""
        routes = [f"Record-Route: {value}" for value in raw_values(server.request, "record-route")]
        contact = f"Contact: {self.contact(user, server.flow.local)}"
        return (*routes, contact, f"Allow: {ALLOW}", f"Supported: {SUPPORTED}")

    def description_in(self, message: Message) -> str:
        """The session description a message carries, "" when it has none; 415 for a body that must be understood."""
        if not message.body:
            return ""
        content_type = message.value("content-type")
        span = find_sdp(content_type, message.body)
        if span is not None:
            return message.body[span[0] : span[1]]
        if isinstance(message, Request):
            disposition = message.value("content-disposition")
            if (parameter(";" + disposition, "handling") or "").lower() != "optional":
                raise SipError(415, headers=("Accept: application/sdp",))
        return ""

    # ------------------------------------------------------------------------------------------------- requests

    def on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A new request: of a dialog of ours, or a new call, or a question."""
        try:
            self._on_request(server, request, now)
        except SipError as error:
            self.respond(server, error.status, now, reason=error.reason, headers=error.headers)

    def _on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        missing = [name for name in request.values("require") if name.lower() not in _EXTENSIONS]
        if missing:
            raise SipError(420, headers=(f"Unsupported: {', '.join(missing)}",))
        if request.to_tag:
            call = self.calls.get((request.call_id, request.to_tag))
            if call is None:
                raise SipError(481)
            call.receive(server, request, now)
            return
        match request.method:
            case "INVITE":
                self._invited(server, request, now)
            case "OPTIONS":
                self._user_of(request)
                self.respond(server, 200, now, headers=self.abilities)
            case "MESSAGE":
                self._user_of(request)
                self.respond(server, 200, now)
            case "BYE" | "UPDATE" | "PRACK" | "INFO" | "NOTIFY":
                raise SipError(481)
            case "SUBSCRIBE":
                raise SipError(489, headers=("Allow-Events: refer",))
            case "REFER":
                raise SipError(403, "REFER Within a Call Only")
            case _:
                raise SipError(405, headers=self.abilities)

    def _user_of(self, request: Request) -> User:
        """Whose phone rings: the user part of the Request-URI, which is our Contact's."""
        try:
            uri = parse_uri(request.uri)
        except UriError as error:
            raise SipError(400, "Malformed Request-URI") from error
        if not uri.is_sip:
            raise SipError(416)
        user = self.users.get(uri.user)
        if user is None and len(self.users) == 1:
            user = next(iter(self.users.values()))
        if user is None:
            raise SipError(404)
        return user

    def _invited(self, server: ServerTransaction, request: Request, now: float) -> None:
        user = self._user_of(request)
        if self._stopping:
            raise SipError(480)
        if (request.call_id, request.from_tag) in self._callers:
            raise SipError(482)  # the same INVITE came another way (RFC 3261 §8.2.2.2)
        replaced = self._replaced(request)
        if not request.values("contact") and request.branch.startswith(MAGIC):
            raise SipError(400, "Missing Contact header")  # RFC 2543 allowed that: then From is the remote target
        accepted = request.values("accept")
        if accepted and not any(item.partition(";")[0].strip().lower() in _SDP_RANGES for item in accepted):
            raise SipError(406, headers=("Accept: application/sdp",))
        local_tag = self.ids.tag()
        dialog = Dialog.of_callee(request, local_tag, 0)
        call = Call(self, user, request.call_id, local_tag, dialog.peer, ours=False)
        server.user = call
        server.on_end = None
        self.calls[call.call_id, local_tag] = call
        self._callers[call.call_id, request.from_tag] = call
        invited = Invited(call, server, dialog, replaced)
        call.setup = invited
        try:
            invited.start(now)
        except SipError as error:
            self.respond(server, error.status, now, reason=error.reason, to_tag=local_tag, headers=error.headers)
            call.notify("incoming", to=request.uri)
            call.end(f"{error.status} {error.reason}", "us", now)

    def _replaced(self, request: Request) -> Call | None:
        """The call that an INVITE with Replaces takes over (RFC 3891 §3); None without one."""
        value = request.value("replaces")
        if not value:
            return None
        call = self.calls.get((value.partition(";")[0].strip(), parameter(value, "to-tag") or ""))
        if call is None or call.state is not State.ACTIVE or call.dialog is None:
            raise SipError(481)
        if call.dialog.remote_tag != parameter(value, "from-tag"):
            raise SipError(481)
        if parameter(value, "early-only") is not None:
            raise SipError(486)
        return call

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """The ACK of a 2xx."""
        call = self.calls.get((request.call_id, request.to_tag))
        if call is not None:
            call.receive_ack(request, now)

    def _tag_of(self, key: str) -> str:
        """The tag of our answers: a CANCEL is answered with that of the INVITE it names (RFC 3261 §9.2)."""
        server = self.layer.servers.get(key)
        call = server.user if server is not None else None
        return call.local_tag if isinstance(call, Call) else self.ids.token(key)

    def on_cancel(self, server: ServerTransaction, cancelled: ServerTransaction, now: float) -> None:
        """The caller has given up."""
        call = cancelled.user
        if isinstance(call, Call) and isinstance(call.setup, Invited):
            call.setup.cancelled(now)

    # ------------------------------------------------------------------------------------------------- commands

    def _command(self, name: str, arguments: Any, now: float) -> dict[str, Any]:
        try:
            return self._obey(name, arguments, now)
        except UnclearError as error:
            return {"error": str(error)}

    def _obey(self, name: str, arguments: Any, now: float) -> dict[str, Any]:
        match name:
            case "call":
                account = arguments.get("account") or next(iter(self.users))
                user = self.users.get(account)
                if user is None:
                    raise UnclearError(f"no account {account!r} here")
                return {"call_id": self.place(user, arguments["uri"], now).call_id}
            case "answer" | "busy":
                ringing = [call for call in self._named(arguments) if isinstance(call.setup, Invited)]
                if not ringing:
                    raise UnclearError("nothing rings")
                for call in ringing:
                    if isinstance(call.setup, Invited) and name == "answer":
                        call.setup.answer(now)
                    elif isinstance(call.setup, Invited):
                        call.setup.give_up(486, now)
            case "hangup":
                for call in self._named(arguments):
                    call.hang_up(now)
            case "hold" | "resume":
                for call in self._active(arguments):
                    call.alter(name == "hold", now)
            case "refer":
                for call in self._active(arguments):
                    call.refer(arguments["uri"], now)
            case _:
                raise UnclearError(f"unknown command {name!r}")
        return {}

    def _named(self, arguments: Any) -> list[Call]:
        """The calls a command is about: all, or those whose Call-ID begins so."""
        wanted = arguments.get("call_id") or "all"
        calls = [call for call in self.calls.values() if wanted == "all" or call.call_id.startswith(wanted)]
        if not calls and wanted != "all":
            raise UnclearError(f"no call {wanted!r}")
        return calls

    def _active(self, arguments: Any) -> list[Call]:
        calls = [call for call in self._named(arguments) if call.state is State.ACTIVE]
        if not calls:
            raise UnclearError("no such call is up")
        return calls

    # -------------------------------------------------------------------------------------------------- the end

    def _go_on_stopping(self, now: float) -> None:
        if not self._stopping or self.calls or self._goodbyes:
            return
        registrations = [user.registration for user in self.users.values() if user.registration is not None]
        if not self._deregistering:
            self._deregistering = True
            for registration in registrations:
                registration.end(now)
        if all(registration.ended for registration in registrations):
            self.act(Finished())


class UnclearError(Exception):
    """A command cannot be carried out; the text says why."""


def _loose(proxy: str) -> str:
    """The outbound proxy as a loose route."""
    if not proxy:
        return ""
    uri = parse_uri(proxy)
    return str(uri if uri.param("lr") is not None else uri.with_param("lr"))
