"""SIP-MNs and their registrations (RO §2.2, RO-3 … RO-5): the Binding List of this SIP-NMS.

The Contact that a SIP-MN's own server learns is `<sip:our-permanent-uri;mn=token>` (RO-4): it leads through the
SIP-HS to whichever path is alive, and the token tells the SIP-MNs apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sipnemo.nemo.binding_list import BindingEntry
from sipnemo.roles.endpoint import forwards, via_line
from sipnemo.roles.nms import translate
from sipnemo.roles.nms.targets import sip_uri
from sipnemo.roles.node import Count
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, Response, end_of_uri, parameter, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ClientTransaction, ServerTransaction
from sipnemo.sip.uri import UriError, address_of_record
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer

DEFAULT_EXPIRES = 3600
MAX_SIP_MNS = 10_000
AGAIN = (401, 407, 423)
"Answers to a REGISTER that a SIP-MN repeats, better, at once."


class MobileNode:
    """One Contact of one SIP-MN."""

    __slots__ = ("contact", "expires_at", "flow", "token", "uri", "user_agent")

    def __init__(self, uri: str, contact: str, token: str, flow: Flow, expires_at: float, user_agent: str) -> None:
        self.uri = uri
        "Address of record."
        self.contact = contact
        "URI under which it is reached on the I-face."
        self.token = token
        self.flow = flow
        "For TCP and TLS: its own connection, while it lives; else the Contact's address."
        self.expires_at = expires_at
        self.user_agent = user_agent


class Bindings:
    """The Binding List, and REGISTER on its way through."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self.by_token: dict[str, MobileNode] = {}
        self._tokens = lru_cache(maxsize=4096)(node.tokens.token)
        "Those of the phones that call; each is the same in call after call."

    def rows(self) -> list[BindingEntry]:
        """The list as operators see it."""
        return [
            BindingEntry(mn.uri, mn.contact, None, mn.expires_at, user_agent=mn.user_agent)
            for mn in self.by_token.values()
        ]

    def find(self, request: Request, now: float) -> MobileNode | None:
        """Whom an initial request from outside is for: by the token in its Request-URI, else by To (RO-4)."""
        try:
            token = parse_uri(request.uri).param("mn")
        except UriError:
            token = None
        if token:
            mn = self.by_token.get(token)
            return mn if mn is not None and mn.expires_at > now else None
        wanted = record_of(request.value("to"))
        return next((mn for mn in self.by_token.values() if mn.uri == wanted and mn.expires_at > now), None)

    def token_for(self, request: Request, flow: Flow) -> str:
        """The token that names the sender of a request inside, registered or not."""
        return self.token(request.contact, flow)

    def connection_closed(self, flow: Flow) -> None:
        """A SIP-MN's connection is gone: until it opens another, it is called at its Contact's address."""
        for mn in self.by_token.values():
            if mn.flow == flow:
                mn.flow = self._node.at_contact(mn.contact, flow)

    def expire(self, now: float) -> None:
        """Drop what has run out."""
        gone = [token for token, mn in self.by_token.items() if mn.expires_at <= now]
        for token in gone:
            del self.by_token[token]
        if gone:
            self._node.kept.phones(dict.fromkeys(gone), now)

    # ------------------------------------------------------------------------------------------------- REGISTER

    def register(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A SIP-MN registers with its own server, through us (RO-3)."""
        node = self._node
        left = forwards(request)
        routes = node.routes_behind_us(request)
        next_uri = sip_uri(uri_of(routes[0]) if routes else request.uri)
        if node.is_us(str(next_uri)):
            raise SipError(404, "This gateway is no registrar; register with the phone's own server")
        contacts = request.values("contact")
        if any("?" in contact and "<" not in contact for contact in contacts):
            raise SipError(400, "A Contact URI with ? belongs in angle brackets")  # RFC 3261 §20
        twin = request.copy()
        if contacts and contacts != ["*"] and not any(self._foreign(contact) for contact in contacts):
            twin.remove("contact")
            twin.set("contact", ", ".join(self._outer(contact, server.flow) for contact in contacts))
        node.choose(None, now)  # 503 at once when no path is ON
        relayed = Relayed(self, server, contacts)
        if node.settings.register == "early" and contacts:
            tokens = [self.token(uri_of(contact), server.flow) for contact in contacts]
            before = {token: self.by_token.get(token) for token in tokens}
            self._bind(server, contacts, DEFAULT_EXPIRES, now)
            relayed.promised = [(mn, before[mn.token]) for mn in map(self.by_token.get, tokens) if mn is not None]
            self._answer_early(server, contacts, now)

        def build(target: Target, branch: str) -> tuple[bytes, Flow] | None:
            flow = node.way_out(target)
            if flow is None:
                return None
            own = [via_line(flow, branch), f"Max-Forwards: {left}", *(f"Route: {route}" for route in routes)]
            return translate.request(twin, request.uri, own, request.cseq, request.body), flow

        def located(targets: list[Target], at: float) -> None:
            if targets:
                node.attempt(relayed, "REGISTER", targets, build, at)
            elif not server.finished:
                node.respond(server, 503, at, headers=("Retry-After: 10",))

        node.locate(next_uri, located, now)

    def _foreign(self, contact: str) -> bool:
        """A Contact that names another SIP-NMS's URI: of a node not registered here, handed on untouched (RO-5)."""
        return contact != "*" and ";mn=" in uri_of(contact)

    def _outer(self, contact: str, flow: Flow) -> str:
        """One Contact as the SIP-MN's server gets it, its own parameters kept."""
        uri = uri_of(contact)
        close = end_of_uri(contact)
        parameters = contact[close + 1 :] if close >= 0 else contact[len(uri) :]
        return f"<{self._node.permanent_uri()};mn={self.token(uri, flow)}>{parameters}"

    def token(self, uri: str, flow: Flow) -> str:
        """The token of one Contact of one SIP-MN: the same at every refresh and after a restart."""
        text = f"{uri} {flow.remote[0]}"
        return self._tokens(text) if len(text) <= 256 else self._node.tokens.token(text)

    def _bind(self, server: ServerTransaction, contacts: list[str], granted: int, now: float) -> None:
        """Create, refresh or remove Binding List entries as the REGISTER says (RFC 3261 §10.3)."""
        request, flow = server.request, server.flow
        uri = record_of(request.value("to"))
        changed: dict[str, MobileNode | None] = {}
        if contacts == ["*"]:
            for token in [token for token, mn in self.by_token.items() if mn.uri == uri]:
                del self.by_token[token]
                changed[token] = None
            self._node.kept.phones(changed, now)
            return
        for contact in contacts:
            contact_uri = uri_of(contact)
            token = self.token(contact_uri, flow)
            seconds = _span(contact, request, granted)
            if seconds == 0:
                if self.by_token.pop(token, None) is not None:
                    changed[token] = None
                continue
            if token not in self.by_token and len(self.by_token) >= MAX_SIP_MNS:
                raise SipError(503, "Too many phones")
            way = self._node.way_inside(contact_uri, flow)
            agent = request.value("user-agent")
            mn = MobileNode(uri, _without_headers(contact_uri), token, way, now + seconds + 5.0, agent)
            self.by_token[token] = changed[token] = mn
        self._node.kept.phones(changed, now)

    def _answer_early(self, server: ServerTransaction, contacts: list[str], now: float) -> None:
        spans = {uri_of(c): _span(c, server.request, DEFAULT_EXPIRES) for c in contacts if c != "*"}
        lines = tuple(f"Contact: <{uri}>;expires={seconds}" for uri, seconds in spans.items() if seconds)
        self._node.respond(server, 200, now, headers=lines)

    def refused(self, promised: list[tuple[MobileNode, MobileNode | None]], now: float) -> None:
        """What an early 200 has promised is not so: what held before it holds, as at the SIP-MN's server (§10.3)."""
        changed: dict[str, MobileNode | None] = {}
        for mn, before in promised:
            if self.by_token.get(mn.token) is not mn:
                continue  # registered anew meanwhile
            if before is None:
                del self.by_token[mn.token]
            else:
                mn.expires_at = min(mn.expires_at, before.expires_at)
            changed[mn.token] = mn if before is not None else None
        self._node.kept.phones(changed, now)

    def accepted(self, server: ServerTransaction, contacts: list[str], response: Response, now: float) -> None:
        """The SIP-MN's server has taken the registration: its own answer goes to the SIP-MN, Contacts turned back."""
        granted: dict[str, int] = {}
        default = response.value("expires") or server.request.value("expires")
        for value in response.values("contact"):
            text = parameter(value, "expires") or default
            token = _token_of(uri_of(value))
            granted[token] = int(text) if text.isdecimal() and len(text) < 10 else DEFAULT_EXPIRES
        for contact in contacts:
            if contact != "*":
                token = self.token(uri_of(contact), server.flow)
                self._bind(server, [contact], granted.get(token, DEFAULT_EXPIRES), now)
        if contacts == ["*"]:
            self._bind(server, contacts, 0, now)
        self._node.act(Count("phone_registrations", ("ok",)))
        if server.finished:
            return
        inner = {self.token(uri_of(contact), server.flow): uri_of(contact) for contact in contacts if contact != "*"}
        for index, name in enumerate(response.names):
            if name == "contact":
                response.lines[index] = "Contact: " + ", ".join(
                    self._inner(value, inner) for value in response.values_of_line(index)
                )
        server.respond(response.status, translate.response(response, server.request, response.body), now)

    def _inner(self, value: str, inner: dict[str, str]) -> str:
        uri = uri_of(value)
        token = _token_of(uri)
        known = inner.get(token) or (self.by_token[token].contact if token in self.by_token else None)
        if known is None:
            return value
        close = end_of_uri(value)
        return f"<{known}>{value[close + 1 :] if close >= 0 else ''}"


class Relayed:
    """A SIP-MN's REGISTER at its own server."""

    __slots__ = ("_bindings", "_contacts", "_server", "promised")

    def __init__(self, bindings: Bindings, server: ServerTransaction, contacts: list[str]) -> None:
        self._bindings = bindings
        self._server = server
        self._contacts = contacts
        self.promised: list[tuple[MobileNode, MobileNode | None]] = []
        "What was bound before its own server was asked, and what had been bound before that."

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The server's own answer, a challenge for example, reaches the SIP-MN (RO-3)."""
        if response.status == 100:
            return
        if 200 <= response.status < 300:
            try:
                self._bindings.accepted(self._server, self._contacts, response, now)
            except SipError as error:
                if not self._server.finished:
                    self._bindings._node.respond(self._server, error.status, now, reason=error.reason)
            return
        if response.status >= 300 and response.status not in AGAIN:
            self._bindings.refused(self.promised, now)
        if not self._server.finished:
            data = translate.response(response, self._server.request, response.body)
            self._server.respond(response.status, data, now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """The server is silent."""
        if not self._server.finished:
            self._bindings._node.respond(self._server, status, now)


def _span(contact: str, request: Request, most: int) -> int:
    """Seconds for which a Contact is bound (RFC 3261 §10.3 item 7)."""
    asked = parameter(contact, "expires") or request.value("expires")
    return min(int(asked), most) if asked and asked.isdecimal() and len(asked) < 10 else most


def record_of(value: str) -> str:
    """The address of record in a From or To value; the bare text when it is no SIP URI."""
    uri = uri_of(value)
    try:
        return address_of_record(parse_uri(uri))
    except UriError:
        return uri


def _without_headers(uri: str) -> str:
    """A Contact URI as a Request-URI may have it (RFC 3261 §19.1.1)."""
    try:
        return str(parse_uri(uri)._replace(header_text="")) if "?" in uri else uri
    except UriError:
        return uri


def _token_of(uri: str) -> str:
    try:
        return parse_uri(uri).param("mn") or ""
    except UriError:
        return ""
