"""A SIP-MN registers with its own server, through us (RO-3), also when that server cannot be reached (R12).

relay: the SIP-MN gets its server's own answer. Where there is none, or only one that says "not now", a refresh of what
the server has granted is answered 200 by us, for as long as the server's own word still holds, and for a minute at
most: the SIP-MN asks again soon, and notices nothing of an outage that its binding outlives. A SIP-MN that is not bound
there is told the truth.

early: the SIP-MN has its 200 before the server has been asked. That is a promise; so what the server did not hear is
said again until it has, or until the SIP-MN registers anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.endpoint import forwards, via_line
from sipnemo.roles.nms.call import translate
from sipnemo.roles.nms.call.targets import sip_uri
from sipnemo.roles.nms.phone.bindings import DEFAULT_EXPIRES, GRACE, MobileNode, record_of, span_of, token_of
from sipnemo.roles.node import Count
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, Response, end_of_uri, parameter, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.timers import Timer
from sipnemo.sip.transaction import ClientTransaction, ServerTransaction
from sipnemo.sip.uri import Uri

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer

AGAIN: Final = frozenset((401, 407, 423))
"Answers to a REGISTER that a SIP-MN repeats, better, at once."
NOT_NOW: Final = frozenset((408, 502, 503, 504))
"Answers that say nothing of the registration, but that the server cannot be asked."
PATIENCE: Final = 20.0
"Seconds that a refresh waits for the server's answer; the SIP-MN itself waits 32 (Timer F)."
STAND_IN: Final = 60
"Seconds that a SIP-MN is bound for by our own word at most."
LEAST_LEFT: Final = 5.0
"Seconds that a binding must still last to be worth a word."
SAY_AGAIN: Final = 5.0
SAY_AGAIN_MOST: Final = 60.0
"Seconds between the attempts to keep an early promise: they double."
PATH_SPREAD: Final = 1.0
"Seconds over which owed REGISTERs are sent when a path is back."


class Registering:
    """REGISTER on its way out, and its answer on its way back."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self.owed: dict[Relayed, None] = {}
        "Promises that their servers have not heard of yet."

    def register(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A SIP-MN's REGISTER."""
        node, bindings = self._node, self._node.bindings
        left = forwards(request)
        routes = node.routes_behind_us(request)
        next_uri = sip_uri(uri_of(routes[0]) if routes else request.uri)
        if node.is_us(str(next_uri)):
            raise SipError(404, "This gateway is no registrar; register with the phone's own server")
        contacts = request.values("contact")
        if any("?" in contact and "<" not in contact for contact in contacts):
            raise SipError(400, "A Contact URI with ? belongs in angle brackets")  # RFC 3261 §20
        twin = request.copy()
        if contacts and contacts != ["*"] and not any(_foreign(contact) for contact in contacts):
            twin.remove("contact")
            twin.set("contact", ", ".join(self._outer(contact, server.flow) for contact in contacts))
        own = [f"Max-Forwards: {left}", *(f"Route: {route}" for route in routes)]
        relayed = Relayed(self, server, contacts, twin, next_uri, own)
        early = node.settings.register == "early" and contacts
        if early:
            tokens = [bindings.token(uri_of(contact), server.flow) for contact in contacts]
            before = {token: bindings.by_token.get(token) for token in tokens}
            bindings.bind(server, contacts, DEFAULT_EXPIRES, now)
            relayed.promised = [(mn, before[mn.token]) for mn in map(bindings.by_token.get, tokens) if mn is not None]
            self._answer_early(server, contacts, now)
        if not node.ranked(None) and not node.doubtful():
            if early:
                relayed.owe(now)
            elif not self.stand_in(relayed, now):
                node.choose(None, now)  # raises 503
            return
        relayed.send(now)

    def path_on(self, now: float) -> None:
        """A path is back: what is owed goes by it."""
        for relayed in self.owed:
            relayed.hurry(now + PATH_SPREAD * self._node.ids.chance())

    # ---------------------------------------------------------------------------------------------------- Contacts

    def _outer(self, contact: str, flow: Flow) -> str:
        """One Contact as the SIP-MN's server gets it, its own parameters kept."""
        uri = uri_of(contact)
        close = end_of_uri(contact)
        parameters = contact[close + 1 :] if close >= 0 else contact[len(uri) :]
        return f"<{self._node.permanent_uri()};mn={self._node.bindings.token(uri, flow)}>{parameters}"

    def _inner(self, value: str, inner: dict[str, str]) -> str:
        by_token = self._node.bindings.by_token
        token = token_of(uri_of(value))
        known = inner.get(token) or (by_token[token].contact if token in by_token else None)
        if known is None:
            return value
        close = end_of_uri(value)
        return f"<{known}>{value[close + 1 :] if close >= 0 else ''}"

    # ----------------------------------------------------------------------------------------------------- answers

    def _answer_early(self, server: ServerTransaction, contacts: list[str], now: float) -> None:
        spans = {uri_of(c): span_of(c, server.request, DEFAULT_EXPIRES) for c in contacts if c != "*"}
        lines = tuple(f"Contact: <{uri}>;expires={seconds}" for uri, seconds in spans.items() if seconds)
        self._node.respond(server, 200, now, headers=lines)

    def accepted(self, server: ServerTransaction, contacts: list[str], response: Response, now: float) -> None:
        """The SIP-MN's server has taken the registration: its own answer goes to the SIP-MN, Contacts turned back."""
        bindings = self._node.bindings
        granted: dict[str, int] = {}
        default = response.value("expires") or server.request.value("expires")
        for value in response.values("contact"):
            text = parameter(value, "expires") or default
            token = token_of(uri_of(value))
            granted[token] = int(text) if text.isdecimal() and len(text) < 10 else DEFAULT_EXPIRES
        for contact in contacts:
            if contact != "*":
                token = bindings.token(uri_of(contact), server.flow)
                bindings.bind(server, [contact], granted.get(token, DEFAULT_EXPIRES), now)
        if contacts == ["*"]:
            bindings.bind(server, contacts, 0, now)
        self._node.act(Count("phone_registrations", ("ok",)))
        if server.finished:
            return
        inner = {bindings.token(uri_of(c), server.flow): uri_of(c) for c in contacts if c != "*"}
        for index, name in enumerate(response.names):
            if name == "contact":
                response.lines[index] = "Contact: " + ", ".join(
                    self._inner(value, inner) for value in response.values_of_line(index)
                )
        server.respond(response.status, translate.response(response, server.request, response.body), now)

    def stand_in(self, relayed: Relayed, now: float) -> bool:
        """Answer a refresh in the place of a server that cannot be asked, if its own word still holds."""
        server, node = relayed.server, self._node
        if server.finished or not relayed.contacts:
            return False
        lines = []
        uri = record_of(server.request.value("to"))
        for contact in relayed.contacts:
            mn = node.bindings.by_token.get(node.bindings.token(uri_of(contact), server.flow))
            if mn is None or mn.uri != uri or span_of(contact, server.request, DEFAULT_EXPIRES) == 0:
                return False
            left = mn.expires_at - GRACE - now
            if left < LEAST_LEFT:
                return False
            lines.append(f"Contact: <{uri_of(contact)}>;expires={min(STAND_IN, int(left))}")
            mn.flow = node.way_inside(uri_of(contact), server.flow)
        node.act(Count("phone_registrations", ("stand_in",)))
        node.respond(server, 200, now, headers=tuple(lines))
        return True


class Relayed:
    """A SIP-MN's REGISTER at its own server."""

    __slots__ = ("_after", "_next_uri", "_own", "_registering", "_timer", "_twin", "contacts", "promised", "server")

    def __init__(
        self,
        registering: Registering,
        server: ServerTransaction,
        contacts: list[str],
        twin: Request,
        next_uri: Uri,
        own: list[str],
    ) -> None:
        self._registering = registering
        self.server = server
        self.contacts = contacts
        self._twin = twin
        self._next_uri = next_uri
        self._own = own
        "Header lines of ours behind Via."
        self._timer: Timer | None = None
        self._after = SAY_AGAIN
        self.promised: list[tuple[MobileNode, MobileNode | None]] = []
        "What was bound before its own server was asked, and what had been bound before that."

    # ----------------------------------------------------------------------------------------------------- sending

    def send(self, now: float) -> None:
        """Ask the server."""
        node = self._registering._node
        self._stop_timer()
        if not self.server.finished:
            self._timer = node.timers.set(now + PATIENCE, self._out_of_patience)
        node.locate(self._next_uri, self._located, now)

    def _located(self, targets: list[Target], now: float) -> None:
        node = self._registering._node
        if targets:
            node.attempt(self, "REGISTER", targets, self._build, now)
        else:
            self._not_now(503, now)

    def _build(self, target: Target, branch: str) -> tuple[bytes, Flow] | None:
        flow = self._registering._node.way_out(target)
        if flow is None:
            return None
        twin = self._twin
        return translate.request(twin, twin.uri, [via_line(flow, branch), *self._own], twin.cseq, twin.body), flow

    def _out_of_patience(self, now: float) -> None:
        self._timer = None
        self._registering.stand_in(self, now)

    # ---------------------------------------------------------------------------------------------------- promises

    def owe(self, now: float) -> None:
        """The server has not heard what was promised: say it again later."""
        if not self._holds():
            return
        self._registering.owed[self] = None
        wait = self._after * (0.5 + self._registering._node.ids.chance() / 2)
        self._after = min(SAY_AGAIN_MOST, 2 * self._after)
        self.hurry(now + wait)

    def hurry(self, at: float) -> None:
        """Say it at this instant, or sooner."""
        if self._timer is None or self._timer.at > at:
            self._stop_timer()
            self._timer = self._registering._node.timers.set(at, self._again)

    def _again(self, now: float) -> None:
        node = self._registering._node
        self._timer = None
        self._registering.owed.pop(self, None)
        if not self._holds():
            return
        if node.ranked(None) or node.doubtful():
            self.send(now)
        else:
            self.owe(now)

    def _holds(self) -> bool:
        """Whether it is still the last word of its SIP-MN, who has been told 200."""
        by_token = self._registering._node.bindings.by_token
        return bool(self.promised) and all(by_token.get(mn.token) is mn for mn, _ in self.promised)

    # ----------------------------------------------------------------------------------------------------- answers

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """The server's own answer, a challenge for example, reaches the SIP-MN (RO-3)."""
        status = response.status
        if status == 100:
            return
        registering, server = self._registering, self.server
        if status >= 200:
            self._stop_timer()
        if 200 <= status < 300:
            try:
                registering.accepted(server, self.contacts, response, now)
            except SipError as error:
                if not server.finished:
                    registering._node.respond(server, error.status, now, reason=error.reason)
            return
        if status in NOT_NOW:
            if self.promised:
                self.owe(now)
                return
            if registering.stand_in(self, now):
                return
        if status in (400, 500) and self._after > SAY_AGAIN:
            return  # out of order: the server has heard it before (RFC 3261 §10.3 item 7), and only its answer was lost
        if status >= 300 and status not in AGAIN:
            registering._node.bindings.refused(self.promised, now)
        if not server.finished:
            server.respond(status, translate.response(response, server.request, response.body), now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """The server is silent."""
        self._not_now(status, now)

    def _not_now(self, status: int, now: float) -> None:
        self._stop_timer()
        if self.promised:
            self.owe(now)
        elif not self._registering.stand_in(self, now) and not self.server.finished:
            lines = ("Retry-After: 10",) if status == 503 else ()
            self._registering._node.respond(self.server, status, now, headers=lines)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _foreign(contact: str) -> bool:
    """A Contact that names another SIP-NMS's URI: of a node not registered here, handed on untouched (RO-5)."""
    return contact != "*" and ";mn=" in uri_of(contact)
