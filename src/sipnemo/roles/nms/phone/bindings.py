"""SIP-MNs and their registrations (RO §2.2, RO-3 … RO-5): the Binding List of this SIP-NMS.

The Contact that a SIP-MN's own server learns is `<sip:our-permanent-uri;mn=token>` (RO-4): it leads through the
SIP-HS to whichever path is alive, and the token tells the SIP-MNs apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from sipnemo.nemo.binding_list import BindingEntry
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, parameter, uri_of
from sipnemo.sip.transaction import ServerTransaction
from sipnemo.sip.uri import UriError, address_of_record
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer

DEFAULT_EXPIRES = 3600
MAX_SIP_MNS = 10_000
GRACE = 5.0
"Seconds for which a binding is still used when it has run out."


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
    """The Binding List; `registering.py` fills it."""

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

    def token(self, uri: str, flow: Flow) -> str:
        """The token of one Contact of one SIP-MN: the same at every refresh and after a restart."""
        text = f"{uri} {flow.remote[0]}"
        return self._tokens(text) if len(text) <= 256 else self._node.tokens.token(text)

    def bind(self, server: ServerTransaction, contacts: list[str], granted: int, now: float) -> None:
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
            seconds = span_of(contact, request, granted)
            if seconds == 0:
                if self.by_token.pop(token, None) is not None:
                    changed[token] = None
                continue
            if token not in self.by_token and len(self.by_token) >= MAX_SIP_MNS:
                raise SipError(503, "Too many phones")
            way = self._node.way_inside(contact_uri, flow)
            agent = request.value("user-agent")
            mn = MobileNode(uri, _without_headers(contact_uri), token, way, now + seconds + GRACE, agent)
            self.by_token[token] = changed[token] = mn
        self._node.kept.phones(changed, now)

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


def span_of(contact: str, request: Request, most: int) -> int:
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


def token_of(uri: str) -> str:
    """The token of a SIP-MN in a Contact of ours; "" in any other."""
    try:
        return parse_uri(uri).param("mn") or ""
    except UriError:
        return ""
