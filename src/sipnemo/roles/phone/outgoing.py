"""One request of ours from the first try to the final answer: where it goes, and credentials when asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sipnemo.roles.endpoint import via_line
from sipnemo.roles.node import Send
from sipnemo.roles.phone.dialog import SDP, Dialog, make_request, raw_values
from sipnemo.sip.digest_client import ClientAuth
from sipnemo.sip.errors import REASONS
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, Response, printed, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ClientTransaction
from sipnemo.sip.uri import Uri, UriError
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.endpoint import Attempts
    from sipnemo.roles.phone.node import Phone, User

MOST_CHALLENGES: Final = 4
"Times one request is sent again with (other) credentials: a server and two proxies, and one that is stale."

HAS_CONTACT: Final = frozenset(("INVITE", "UPDATE", "REGISTER", "REFER", "SUBSCRIBE", "NOTIFY"))

Heard = Callable[[Response, float], None]


class Outgoing:
    """A request under way. Not for ACK and CANCEL, which are sent as they are."""

    def __init__(
        self,
        phone: Phone,
        user: User,
        request: Request,
        next_cseq: Callable[[], int],
        on_final: Heard,
        on_provisional: Heard | None = None,
        contact_params: str = "",
    ) -> None:
        self._phone = phone
        self._user = user
        self.request = request
        "As last sent, but for Via."
        self._next_cseq = next_cseq
        self._on_final = on_final
        self._on_provisional = on_provisional
        self._contact_params = contact_params
        # Credentials go only to who has asked for them: a registrar need not see what a call's proxy wanted.
        self._auth = user.register_auth if request.method == "REGISTER" else user.auth
        self._challenges = 0
        self._attempts: Attempts | None = None
        self.abandoned = False
        "Nobody waits for the answer any more."

    @property
    def client(self) -> ClientTransaction | None:
        """The transaction at hand."""
        return self._attempts.client if self._attempts is not None else None

    def send(self, now: float) -> None:
        """Send it for the first time."""
        request = self.request
        routes = request.values("route")
        try:
            hop = parse_uri(uri_of(routes[0]) if routes else request.uri)
            if not hop.is_sip:
                raise UriError(f"{hop.scheme}: URIs need a server or proxy that knows them")
        except UriError as error:
            # From a timer, so that nobody hears of the end before the beginning is over.
            words = str(error)
            self._phone.timers.set(now, lambda at: self._on_final(unheard(request, 416, words), at))
            return
        self._phone.locate(hop, self._located, now, self._phone.transports)

    def send_again(self, now: float) -> None:
        """Send it anew with the next CSeq number."""
        request = self.request
        request.cseq = self._next_cseq()
        request.set("cseq", f"{request.cseq} {request.method}")
        self.send(now)

    def abandon(self) -> None:
        """Stop retransmitting and forget it."""
        self.abandoned = True
        if self.client is not None:
            self.client.abandon()

    def _located(self, targets: list[Target], now: float) -> None:
        if self.abandoned:
            return
        if not targets:
            hop = self.request.uri
            self._phone.log("warning", "No server is known for this URI", self.request.call_id, uri=hop)
            self._phone.timers.set(now, lambda at: self._on_final(unheard(self.request, 503, "Not Located"), at))
            return
        self._attempts = self._phone.attempt(self, self.request.method, targets, self._build, now)

    def _build(self, target: Target, branch: str) -> tuple[bytes, Flow] | None:
        flow = self._phone.flow_to(target)
        if flow is None:
            return None
        request = self.request
        if request.method in HAS_CONTACT:
            request.set("contact", self._phone.contact(self._user, flow.local) + self._contact_params)
        authorize(request, self._auth, self._phone.ids.tag)
        copy = request.copy()
        line = via_line(flow, branch)
        copy.names = ("via", *copy.names)
        copy.lines.insert(0, line)
        return copy.encode(), flow

    # -------------------------------------------------------------------------------- what the transaction tells

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """A response; 401 and 407 are answered here as long as that can help."""
        if self.abandoned:
            return
        if response.status < 200:
            if self._on_provisional is not None:
                self._on_provisional(response, now)
            return
        auth = self._auth
        if response.status in (401, 407) and auth is not None and self._challenges < MOST_CHALLENGES:
            self._challenges += 1
            kind = "www-authenticate" if response.status == 401 else "proxy-authenticate"
            sent = raw_values(self.request, "authorization" if response.status == 401 else "proxy-authorization")
            if auth.challenged(response.status, raw_values(response, kind), sent):
                self.send_again(now)
                return
        elif response.status < 300 and auth is not None and (info := response.value("authentication-info")):
            auth.authenticated(info, raw_values(self.request, "authorization"))
        self._on_final(response, now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """No answer at all: 408 or 503, as if it had been received (RFC 3261 §8.1.3.1)."""
        if not self.abandoned:
            self._on_final(unheard(self.request, status, "No Answer" if status == 408 else "Unreachable"), now)


def authorize(request: Request, auth: ClientAuth | None, cnonce: Callable[[], str]) -> None:
    """Put fresh credentials into a request, for every realm that has asked for some before."""
    if auth is None:
        return
    request.remove("authorization")
    request.remove("proxy-authorization")
    for name, value in auth.authorization(request.method, request.uri, request.body, cnonce()):
        request.append(name.lower(), f"{name}: {value}")


def unheard(request: Request, status: int, reason: str = "") -> Response:
    """A response that stands for none."""
    response = Response(status, reason or REASONS.get(status, ""), (), [], "")
    response.call_id, response.from_tag = request.call_id, request.from_tag
    response.cseq, response.cseq_method = request.cseq, request.method
    return response


def cancel_for(client: ClientTransaction) -> bytes:
    """The CANCEL of an INVITE that was sent (RFC 3261 §9.1)."""
    head = client.data.decode("latin-1").partition("\r\n\r\n")[0].split("\r\n")
    lines = ["CANCEL" + head[0][6:]]
    via_seen = False
    for line in head[1:]:
        name = line[: line.find(":")].lower()
        if name == "via":
            if not via_seen:
                lines.append(line)
            via_seen = True
        elif name in ("from", "to", "call-id", "max-forwards", "route"):
            lines.append(line)
        elif name == "cseq":
            lines.append(line.replace("INVITE", "CANCEL"))
    lines.append("Content-Length: 0\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1")


def opening_request(phone: Phone, user: User, method: str, uri: str, cseq: int, from_tag: str, call_id: str) -> Request:
    """A request outside a dialog; the outbound proxy is its preloaded route (RFC 3261 §8.1.2)."""
    target: Uri = parse_uri(uri)
    to = str(target._replace(header_text=""))
    headers = [
        ("from", f"<{user.account.uri}>;tag={from_tag}"),
        ("to", f"<{user.account.uri if method == 'REGISTER' else to}>"),
        ("call-id", call_id),
        ("cseq", f"{cseq} {method}"),
        ("max-forwards", "70"),
    ]
    if phone.settings.proxy:
        headers.append(("route", f"<{phone.proxy_route}>"))
    headers.append(("user-agent", phone.settings.user_agent))
    return make_request(method, to, headers)


class Acknowledgement:
    """The ACK of a 2xx: an own request that is sent again whenever the 2xx comes again (RFC 3261 §13.2.2.4)."""

    def __init__(self, phone: Phone, user: User, dialog: Dialog, invite: Request, body: str, now: float) -> None:
        self._phone = phone
        self._sent: Send | None = None
        request = dialog.request("ACK", invite.cseq, body, SDP if body else "")
        for name in ("authorization", "proxy-authorization"):
            for value in raw_values(invite, name):  # the INVITE's own credentials: an ACK cannot be challenged
                request.append(name, f"{printed(name)}: {value}")
        self._request = request
        routes = request.values("route")
        try:
            hop = parse_uri(uri_of(routes[0]) if routes else request.uri)
        except UriError:
            return
        if hop.is_sip:
            phone.locate(hop, self._located, now, phone.transports)

    def repeat(self) -> None:
        """Send it again."""
        if self._sent is not None:
            self._phone.act(self._sent)

    def _located(self, targets: list[Target], now: float) -> None:
        for target in targets:
            flow = self._phone.flow_to(target)
            if flow is not None:
                self._request.names = ("via", *self._request.names)
                self._request.lines.insert(0, via_line(flow, self._phone.ids.branch()))
                self._sent = Send(self._request.encode(), flow)
                self._phone.act(self._sent)
                return
