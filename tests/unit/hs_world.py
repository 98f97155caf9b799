"""A SIP-HS with a clock, a store and peers that are plain addresses: octets in, messages out, no network."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sipnemo.roles.hs.node import HomeServer
from sipnemo.roles.hs.settings import HsSettings
from sipnemo.roles.node import (
    Action,
    Answer,
    Command,
    Environment,
    Input,
    Listen,
    Log,
    Lookup,
    Notice,
    Received,
    Reply,
    Send,
    SendFailed,
    Store,
    Stored,
    Tick,
)
from sipnemo.sip.digest_client import ClientAuth, Credentials
from sipnemo.sip.errors import ParseError
from sipnemo.sip.flow import Address, Flow, Local
from sipnemo.sip.message import Request, Response
from sipnemo.sip.parser import parse

UDP = Local("UDP", "192.0.2.1", 5060)
TCP = Local("TCP", "192.0.2.1", 5060)
WALL = 1_800_000_000.0
SETTINGS: dict[str, Any] = {
    "domain": "home.example",
    "listen": (UDP, TCP),
    "accounts": {"fleet7": "secret7", "fleet8": "secret8"},
    "users": {"alice": "wonder", "bob": "builder"},
}


class Home:
    """The server under test and everything around it."""

    def __init__(self, rows: dict[str, Any] | None = None, now: float = 100.0, **settings: Any) -> None:
        self.rows: dict[str, Any] = rows if rows is not None else {}
        self.now = now
        self.settings = HsSettings(**{**SETTINGS, **settings})
        stored = json.loads(json.dumps({"bindings": self.rows}))
        self.node = HomeServer(self.settings, Environment(f"{int(now):032x}", WALL, stored))
        self.peers: dict[Address, Peer] = {}
        self.hold_store = False
        self.store_error = ""
        self.held: list[Store] = []
        self.listening: list[Local] = []
        self.notices: list[Notice] = []
        self.logs: list[Log] = []
        self.replies: list[Any] = []
        self.names: dict[str, str] = {}
        "What DNS knows: names and their IPv4 addresses."
        self.stray: list[Send] = []
        "Sent to addresses where nobody is."
        self.feed(Tick())

    def feed(self, input: Input) -> None:
        """One input, and whatever follows from the answers of the store."""
        self._perform(self.node.handle(input, self.now))

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(data, flow):
                    peer = self.peers.get(flow.remote)
                    if peer is None:
                        self.stray.append(action)
                    else:
                        peer.take(data, flow)
                case Store():
                    self.held.append(action)
                case Lookup(ticket, name, kind):
                    known = kind == "A" and name in self.names
                    self.feed(Answer(ticket, (("A", (self.names[name],)),) if known else (), 60.0))
                case Listen(local):
                    self.listening.append(local)
                case Notice():
                    self.notices.append(action)
                case Log():
                    self.logs.append(action)
                case Reply(_, result):
                    self.replies.append(result)
                case _:
                    pass
        if not self.hold_store:
            self.release()

    def release(self) -> None:
        """Let the store do what it was asked to."""
        while self.held:
            store = self.held.pop(0)
            if not self.store_error:
                for key, value in store.rows:
                    if value is None:
                        self.rows.pop(key, None)
                    else:
                        self.rows[key] = json.loads(json.dumps(value))
            self.feed(Stored(store.ticket, self.store_error))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while (deadline := self.node.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.feed(Tick())
        self.now = end

    def command(self, name: str, **arguments: Any) -> Any:
        """The answer to an operator's command."""
        self.feed(Command(1, name, arguments))
        return self.replies.pop()

    def restarted(self, **settings: Any) -> Home:
        """The server after kill -9: only what the store holds survives."""
        home = Home(self.rows, self.now + 1.0, **settings)
        home.peers = self.peers
        for peer in self.peers.values():
            peer.home = home
        return home

    @property
    def clean(self) -> bool:
        """Whether no transaction is left."""
        return not self.node.layer.clients and not self.node.layer.servers


@dataclass
class Peer:
    """A program at an address: sends what it is told and keeps what comes."""

    home: Home
    address: Address
    local: Local = UDP
    inbox: list[Request | Response] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    name: str = ""
    password: str = ""
    call_id: str = ""
    cseq: int = 0
    sent: list[bytes] = field(default_factory=list)
    dead: bool = False
    "Nothing it is sent arrives."

    def __post_init__(self) -> None:
        self.home.peers[self.address] = self
        self.call_id = self.call_id or f"id-{self.address[0]}-{self.address[1]}"
        self._auth = ClientAuth(Credentials(self.name, self.password))
        self._branch = 0

    @property
    def flow(self) -> Flow:
        """How the server sees this peer."""
        return Flow(self.local, self.address)

    def take(self, data: bytes, flow: Flow) -> None:
        """Something was sent here."""
        assert flow.local == self.local
        if self.dead:
            return
        self.raw.append(data)
        if data[:1] > b"\x03":
            with suppress(ParseError):  # the answer to a malformed request echoes what it got
                self.inbox.append(parse(data))

    def unreachable(self) -> None:
        """The network says that nothing arrives here."""
        self.home.feed(SendFailed(self.flow, "connection refused"))

    def send(self, data: bytes | str) -> None:
        """Octets as they are."""
        octets = data.encode("latin-1") if isinstance(data, str) else data
        self.sent.append(octets)
        self.home.feed(Received(octets, self.flow))

    def request(self, method: str, uri: str, *lines: str, body: str = "", via: str = "", **given: Any) -> str:
        """Send a request and return its branch; `given` overrides from_, to, call_id, cseq, forwards."""
        self._branch += 1
        branch = given.get("branch") or f"z9hG4bK{self.address[0].replace('.', '')}{self.address[1]}{self._branch}"
        if "cseq" not in given:
            self.cseq += 1
        user = self.name or "carol"
        from_ = given.get("from_") or f"<sip:{user}@{'home.example' if self.name else 'else.example'}>;tag=f1"
        host, port = self.address
        head = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.local.transport} {host}:{port};rport;branch={branch}",
            *([via] if via else []),
            f"Max-Forwards: {given.get('forwards', 70)}",
            f"From: {from_}",
            f"To: {given.get('to') or f'<{uri}>'}",
            f"Call-ID: {given.get('call_id') or self.call_id}",
            f"CSeq: {given.get('cseq', self.cseq)} {given.get('cseq_method', method)}",
            *lines,
            f"Content-Length: {len(body)}",
        ]
        self.send("\r\n".join((*head, "", body)))
        return branch

    def ask(self, method: str, uri: str, *lines: str, **given: Any) -> Response:
        """Send a request, answer a challenge, and return the last response."""
        sent: list[str] = []
        for _ in range(3):
            answers = self._auth.authorization(method, uri, given.get("body", ""), "c")
            own = [f"{name}: {value}" for name, value in answers]
            sent = [value for _, value in answers]
            before = len(self.inbox)
            self.request(method, uri, *own, *lines, **given)
            came = [item for item in self.inbox[before:] if isinstance(item, Response)]
            assert came, f"no answer to {method}"
            last = came[-1]
            if last.status not in (401, 407) or not self.name:
                return last
            challenges = last.values_raw("www-authenticate") + last.values_raw("proxy-authenticate")
            if not self._auth.challenged(last.status, challenges, sent):
                return last
        return last

    def register(self, *contacts: str, user: str = "", expires: int | None = None, **given: Any) -> Response:
        """REGISTER these Contacts."""
        aor = f"<sip:{user or self.name}@home.example>"
        lines = [f"Contact: {contact}" for contact in contacts]
        if expires is not None:
            lines.append(f"Expires: {expires}")
        lines += given.pop("lines", [])
        return self.ask("REGISTER", "sip:home.example", *lines, from_=f"{aor};tag=r1", to=aor, **given)

    def answer(self, request: Request, status: int, *lines: str, tag: str = "t1", body: str = "") -> None:
        """Answer a request that came here."""
        echoed = ("via", "from", "call-id", "cseq", "record-route")
        own = [line for name, line in zip(request.names, request.lines, strict=True) if name in echoed]
        to = f"To: {request.value('to')}" + ("" if request.to_tag or status == 100 else f";tag={tag}")
        head = (f"SIP/2.0 {status} Whatever", *own, to, *lines, f"Content-Length: {len(body)}")
        self.send("\r\n".join((*head, "", body)))

    def got(self, method: str) -> Request:
        """The last request of this method that came here."""
        found = [item for item in self.inbox if isinstance(item, Request) and item.method == method]
        assert found, f"no {method} came to {self.address}; inbox {[item.start_line for item in self.inbox]}"
        return found[-1]

    @property
    def starts(self) -> list[str]:
        """What came, by method or status."""
        return [item.method if isinstance(item, Request) else str(item.status) for item in self.inbox]


class Gateway:
    """A SIP-NMS with several paths."""

    def __init__(self, home: Home, paths: int = 2, number: int = 7, account: str = "fleet7") -> None:
        self.instance = f"urn:uuid:00000000-0000-0000-0000-{number:012}"
        password = SETTINGS["accounts"][account]
        self.paths = [
            Peer(home, (f"198.51.{number}.{path}", 5060), name=account, password=password)
            for path in range(1, paths + 1)
        ]

    def contact(self, path: int, q: float | None = None, extra: str = "") -> str:
        """The Contact of a path; Priority falls with its number."""
        host, port = self.paths[path - 1].address
        q = 1 - path / 10 if q is None else q
        return f'<sip:{host}:{port}>;+sip.instance="<{self.instance}>";reg-id={path};q={q:g}{extra}'

    def register(self, *paths: int, **given: Any) -> str:
        """Register paths (default: all), each over itself; the assigned URI."""
        uri = ""
        for path in paths or range(1, len(self.paths) + 1):
            answer = self.paths[path - 1].register(self.contact(path), expires=given.get("expires", 600))
            assert answer.status == 200, answer.start_line
            uri = answer.value("p-associated-uri").strip("<>")
        return uri
