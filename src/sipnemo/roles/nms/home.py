"""Registration with the SIP-HS: one flow per path, lost ones reported over surviving ones (RO-2, MH-7, MH-8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.endpoint import host_text, via_line
from sipnemo.roles.node import Count, Notice
from sipnemo.sip.digest_client import ClientAuth, Credentials
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, Response, parameter, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import Timer
from sipnemo.sip.transaction import ClientTransaction
from sipnemo.sip.uri import host_port
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.paths import Path

EXPIRES = 600
"Seconds asked for; the SIP-HS may grant another span."
BASE_BACKOFF = 2.0
MAX_BACKOFF = 60.0
"Seconds: bounds of the wait between failed registrations (RFC 5626 §4.5, with shorter waits: calls depend on it)."
ATTEMPTS_WITH_CREDENTIALS = 3
MAX_ADDRESSES = 32
"Of the SIP-HS, per path."


class Home:
    """The home server as this gateway knows it, and our flows to it."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        settings = node.settings
        self.server = parse_uri(settings.home)
        self.domain = host_text(host_port(self.server)[0])
        port = self.server.port
        self._domain_port = self.domain if port is None else f"{self.domain}:{port}"
        self.address_of_record = f"sip:{settings.account}@{self._domain_port}"
        self.uri = ""
        "Our permanent URI, assigned by the SIP-HS (RO-2); empty until the first 200."
        self.hosts: set[str] = set()
        "Addresses of the SIP-HS: initial requests from anywhere else do not reach a SIP-MN."
        self.flows: dict[Path, Registration] = {}
        self.auth = ClientAuth(Credentials(settings.account, settings.password))

    def path_added(self, path: Path, now: float) -> None:
        """A path has come up: register it, whether or not its probes are answered yet."""
        flow = self.flows.get(path)
        if flow is None:
            flow = self.flows[path] = Registration(self._node, self, path)
        flow.register(now)

    def path_on(self, path: Path, now: float) -> None:
        """A path is ON again: where its Contact was taken out of the SIP-HS, register it anew."""
        flow = self.flows.get(path)
        if flow is not None and flow.taken_out:
            flow.register(now)

    def path_lost(self, path: Path, now: float) -> None:
        """Tell the SIP-HS over a surviving path that this one is gone, so that nobody is sent there (MH-8)."""
        flow = self.flows.get(path)
        survivors = [other for other in self._node.paths.on() if other is not path]
        if flow is None:
            return
        flow.suspend()
        if survivors and flow.registered and survivors[0] in self.flows:
            self.flows[survivors[0]].remove(flow, now)
        flow.registered = False
        flow.taken_out = True

    def path_removed(self, path: Path) -> None:
        """The path exists no more."""
        flow = self.flows.pop(path, None)
        if flow is not None:
            flow.suspend()
            self.moved()

    def moved(self) -> None:
        """Where the SIP-HS is may have changed; what is known is kept when no path can tell."""
        hosts = {host for flow in self.flows.values() for host in flow.hosts}
        if hosts and hosts != self.hosts:
            self.hosts = hosts
            self._node.act(Notice("home", {"addresses": sorted(hosts)}))

    def trusts(self, flow: Flow) -> bool:
        """Whether a message on this flow comes from the SIP-HS."""
        return flow.remote[0] in self.hosts

    def probe_target(self, path: Path) -> tuple[str, int] | None:
        """Where STUN probes of this path go: the SIP-HS's UDP port (RFC 5626 §8)."""
        flow = self.flows.get(path)
        return flow.stun if flow is not None else None

    def record_route_lines(self, request: Request) -> list[str]:
        """Our Record-Route towards the SIP-CN: the URI under the home domain, never twice (RO-7).

        With record_route = "contact" there is none: the Contact alone, renewed by each re-INVITE, leads to us. A
        Record-Route with a contact address would go on naming the old one after a move, since a re-INVITE does not
        change a route set (RFC 3261 §12.2).
        """
        if not self.uri or self._node.settings.record_route == "contact":
            return []
        value = f"<{self.uri};lr>"
        if value in request.values("record-route"):
            return []
        return [f"Record-Route: {value}"]

    def assigned(self, uri: str, now: float) -> None:
        """The SIP-HS has named our permanent URI."""
        if uri and uri != self.uri:
            self.uri = uri
            self._node.log("info", "home has assigned our URI", uri=uri)
            self._node.act(Notice("registered", {"uri": uri}))

    def stop(self, now: float) -> None:
        """Take every flow out of the SIP-HS."""
        for flow in self.flows.values():
            flow.unregister(now)


class Registration:
    """One flow (RFC 5626): one path, one reg-id, one Contact."""

    def __init__(self, node: MobilityServer, home: Home, path: Path) -> None:
        self._node = node
        self._home = home
        self._path = path
        self._call_id = node.ids.tag()
        self._tag = node.ids.tag()[:16]
        self._cseq = 0
        self._timer: Timer | None = None
        self._failures = 0
        self._challenges = 0
        self._expires = EXPIRES
        self._running: ClientTransaction | None = None
        self._sent_auth: list[str] = []
        self._removes: list[str] = []
        self.registered = False
        self.taken_out = False
        "The path was lost, and nothing has been sent over it since."
        self.expires_at = 0.0
        self.refused = ""
        "Why the last attempt failed; empty after a success."
        self.stun: tuple[str, int] | None = None
        self._located: tuple[str, ...] = ()
        self._registered_at = ""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Addresses of the SIP-HS: as last located, and where this flow was last registered."""
        return (*self._located, self._registered_at) if self._registered_at else self._located

    @property
    def contact(self) -> str:
        """Our Contact value for this flow."""
        path = self._path
        q = max(0.001, 1.0 - path.eface.priority / 100 - path.rank / 1000)  # unique as long as priorities are (MH-7)
        return f"{self._bare()};q={q:.3f};expires={self._expires}"

    def _bare(self) -> str:
        instance = self._node.settings.instance
        uri = self._path.contact(self._transport())
        return f'<{uri}>;reg-id={self._path.reg_id};+sip.instance="<{instance}>"'

    def _transport(self) -> str:
        return self._home.server.transport or ("TLS" if self._home.server.scheme == "sips" else "UDP")

    def register(self, now: float) -> None:
        """Register or refresh."""
        self.taken_out = False
        self._challenges = 0
        self._send([self.contact], now)

    def remove(self, other: Registration, now: float) -> None:
        """Over this flow, take another flow's Contact out of the SIP-HS."""
        self._challenges = 0
        self._removes = [other._bare() + ";expires=0"]
        self._send([self.contact, *self._removes], now)

    def unregister(self, now: float) -> None:
        """Take our own Contact out."""
        self.suspend()
        if self.registered and self._path.present:
            self._expires = 0
            self._send([f"{self._bare()};expires=0"], now)

    def suspend(self) -> None:
        """Wait for nothing more: the path is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            self._running.abandon()
            self._running = None

    def _send(self, contacts: list[str], now: float) -> None:
        self.suspend()
        node, home, path = self._node, self._home, self._path
        self._contacts = contacts

        def located(targets: list[Target], at: float) -> None:
            usable = [target for target in targets if path.flow_to(target) is not None]
            if not usable:
                self._failed("home cannot be located" if not targets else "home has no address of our family", at)
                return
            self._located = tuple(target.host for target in usable[:MAX_ADDRESSES])
            home.moved()
            target = usable[self._failures % len(usable)]
            udp = next((t for t in usable if t.transport == "UDP"), target)
            located_before, self.stun = self.stun, (udp.host, udp.port)
            prober = node.probers.get(path)
            if located_before is None and prober is not None:
                prober.start(at)  # the first probe had nowhere to go
            flow = path.flow_to(target)
            assert flow is not None
            self._cseq += 1
            branch = node.ids.branch()
            request_uri = f"{home.server.scheme}:{home._domain_port}"
            headers = home.auth.authorization("REGISTER", request_uri, "", node.ids.tag()[:16])
            self._sent_auth = [value for _, value in headers]
            lines = [
                f"REGISTER {request_uri} SIP/2.0",
                via_line(flow, branch),
                "Max-Forwards: 70",
                f"From: <{home.address_of_record}>;tag={self._tag}",
                f"To: <{home.address_of_record}>",
                f"Call-ID: {self._call_id}",
                f"CSeq: {self._cseq} REGISTER",
                *(f"Contact: {contact}" for contact in contacts),
                *(f"{name}: {value}" for name, value in headers),
                "Supported: path, outbound",
                "User-Agent: sipnemo",
                "Content-Length: 0\r\n\r\n",
            ]
            data = "\r\n".join(lines).encode("latin-1")
            self._running = node.layer.request(self, branch, "REGISTER", data, flow, at)

        node.locate(home.server, located, now, tuple(path.locals))

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The SIP-HS has answered."""
        status = response.status
        if status < 200 or client is not self._running:
            return
        self._running = None
        if status < 300:
            self._registered_at = client.flow.remote[0]
            self._accepted(response, now)
            self._home.moved()
        elif status in (401, 407) and self._answerable(status, response):
            self._challenges += 1
            self._send(self._contacts, now)
        elif status == 400 and not self._removes and self._others():
            # An earlier configuration gave our Priority to another flow (MH-7): take the others out; each comes back
            # with its own registration.
            self._removes = [f"{other._bare()};expires=0" for other in self._others()]
            self._send([self.contact, *self._removes], now)
        elif status == 423 and self._expires < (least := _seconds(response.value("min-expires"))):
            self._expires = least
            self.register(now)
        else:
            retry = response.value("retry-after").partition(";")[0].partition("(")[0].strip()
            self._failed(
                f"{status} {response.reason}", now, float(retry) if retry.isdecimal() and len(retry) < 6 else 0.0
            )

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """The SIP-HS is silent or unreachable."""
        if client is self._running:
            self._running = None
            self._failed("no answer" if status == 408 else "unreachable", now)

    def _answerable(self, status: int, response: Response) -> bool:
        name = "www-authenticate" if status == 401 else "proxy-authenticate"
        hope = self._home.auth.challenged(status, response.values_raw(name), self._sent_auth)
        return hope and self._challenges < ATTEMPTS_WITH_CREDENTIALS

    def _others(self) -> list[Registration]:
        return [flow for flow in self._home.flows.values() if flow is not self]

    def _accepted(self, response: Response, now: float) -> None:
        if self._expires == 0:
            self.registered = False
            return
        for other in self._others():
            if other.registered and f"{other._bare()};expires=0" in self._removes:
                self._node.timers.set(now, other.register)
        for info in response.values_raw("authentication-info"):
            self._home.auth.authenticated(info, self._sent_auth)
        granted = self._expires
        for contact in response.values("contact"):
            if uri_of(contact) == self._path.contact(self._transport()):
                text = parameter(contact, "expires") or ""
                granted = int(text) if text.isdecimal() and len(text) < 10 else granted
        if not self.registered:
            self._node.log("info", "registered at home", path=self._path.name, expires=granted)
        self._node.act(Count("registrations", ("ok",)))
        self.registered = True
        self.refused = ""
        self._failures = 0
        self._removes = []
        self.expires_at = now + granted
        self._home.assigned(uri_of(response.value("p-associated-uri")), now)
        refresh = max(1.0, granted * (0.75 + 0.1 * self._node.ids.chance()))
        self._timer = self._node.timers.set(now + refresh, self.register)

    def _failed(self, why: str, now: float, at_least: float = 0.0) -> None:
        if why != self.refused:
            self._node.log("warning", "not registered at home", path=self._path.name, why=why)
        self._node.act(Count("registrations", ("failed",)))
        self.refused = why
        self._failures += 1
        if self.registered and now >= self.expires_at:
            self.registered = False
        wait = min(MAX_BACKOFF, BASE_BACKOFF * 2.0 ** min(self._failures - 1, 10)) * (0.5 + self._node.ids.chance() / 2)
        self._timer = self._node.timers.set(now + max(wait, at_least), self.register)


def _seconds(text: str) -> int:
    """A span as a header says it; 0 when it is malformed."""
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else 0
