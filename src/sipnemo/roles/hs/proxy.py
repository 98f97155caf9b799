"""The stateful proxy in front of SIP-NMSs and users (RFC 3261 §16, MH-11, RO-7): who may reach whom, and by which way.

A request is for this server itself, for a SIP-NMS (its assigned URI as Request-URI or topmost Route), for a user, or
for somebody elsewhere; the last only for users who have said who they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sipnemo.roles.endpoint import forwards
from sipnemo.roles.hs.bindings import Binding, Record
from sipnemo.roles.hs.contacts import priority
from sipnemo.roles.hs.fork import Fork
from sipnemo.roles.hs.outgoing import Hop, Outgoing, loop_mark
from sipnemo.roles.node import Count, Send
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ServerTransaction
from sipnemo.sip.transaction_layer import server_key
from sipnemo.sip.uri import Uri, UriError, host_port, is_address, parse, unescape

if TYPE_CHECKING:
    from sipnemo.roles.hs.node import HomeServer

RECORD_ROUTED: Final = frozenset(("INVITE", "SUBSCRIBE", "REFER"))
"Requests that begin a dialog."

MAX_BREADTH: Final = 60
"Branches at a time of a request that says nothing about it (RFC 5393 §5.3.3)."

Destination = Record | Uri | None
"A SIP-NMS or user of ours; the next hop elsewhere; None: this server itself."


class Proxy:
    """Forwards requests."""

    def __init__(self, hs: HomeServer) -> None:
        self._hs: Final = hs

    def forward(self, server: ServerTransaction, request: Request, now: float) -> bool:
        """Pass a request on, or answer it; False when it is for this server itself. Raises SipError."""
        hs = self._hs
        onward = request.copy()
        destination = self._destination(onward)
        if destination is None:
            return False
        hops_left = forwards(request)
        required = request.values("proxy-require")
        if required:
            raise SipError(420, headers=(f"Unsupported: {', '.join(required)}",))
        mark = loop_mark(request)
        if hs.has_passed(request, mark):
            raise SipError(482)
        self._authorise(request, destination, server.flow, now)
        wall = hs.wall(now) - hs.settings.grace
        if hs.settings.mode == "redirect" and isinstance(destination, Record) and not destination.is_gateway:
            self._redirect(server, destination, wall, now)
            return True
        targets = self._targets(destination, onward, wall)
        if not targets:
            raise SipError(480)
        _spread(onward, len(targets))
        hs.access.consume(onward)
        if request.method == "INVITE":
            hs.respond(server, 100, now)
        Fork(hs, server, Outgoing(onward, hops_left), mark, targets).start(now)
        return True

    def acknowledge(self, request: Request, flow: Flow, now: float) -> None:
        """Pass an ACK of a 2xx on; no transaction, no answer (§16.11)."""
        hs = self._hs
        call = hs.calls.get(request.call_id)
        if call is None and self._refused(request):
            return
        onward = request.copy()
        try:
            destination = self._destination(onward)
            outgoing = Outgoing(onward, forwards(request))
        except SipError:
            return
        if destination is None or (not isinstance(destination, Record) and not hs.serves(request, flow, now)):
            hs.act(Count("acks_dropped"))
            return
        targets = self._targets(destination, onward, hs.wall(now) - hs.settings.grace)
        if not targets or hs.has_passed(request, mark := loop_mark(request)):
            return
        hops = targets[0]
        hop = next((hop for hop in hops if hop.flow is not None and hop.flow == call), hops[0])
        branch = f"z9hG4bK{hs.ids.token(request.branch + flow.remote[0])}.{mark}"

        def located(found: list[Target], at: float) -> None:
            for target in found:
                way = hs.domain.flow_to(target.transport, target.host, target.port, flow.local)
                if way is not None:
                    hs.act(Send(outgoing.encode(hs.domain.via(way, branch), hop), way))
                    return

        if hop.flow is not None:
            hs.act(Send(outgoing.encode(hs.domain.via(hop.flow, branch), hop), hop.flow))
        elif hop.next_uri is not None:
            hs.find_targets(hop.next_uri, located, now)

    def _refused(self, ack: Request) -> bool:
        """Whether an ACK is of a refusal of our own, of which nothing was kept (§8.2.7): it ends here (§17.1.1.3).

        The To tag tells: ours is made of what INVITE and ACK have in common.
        """
        token = self._hs.ids.token
        return ack.to_tag in (token(server_key(ack, "INVITE")), token(ack.branch))

    # ---------------------------------------------------------------------------------------------------- where to

    def _destination(self, onward: Request) -> Destination:
        """Whom a request is for; takes the Routes that name us off (§16.4). Raises SipError."""
        hs = self._hs
        uri = _sip_uri(onward.uri, "Request-URI")
        if "route" in onward.names:
            if hs.domain.is_ours(uri) and uri.param("lr") is not None and onward.values("route"):
                # A strict router put our Record-Route into the Request-URI; the real one is the last Route.
                routes = onward.values("route")
                onward.uri = uri_of(routes.pop())
                onward.remove("route")
                for value in reversed(routes):
                    onward.push("route", value)
                record = hs.bindings.find(unescape(uri.user))
                if record is not None and record.is_gateway:
                    return record
            while routes := onward.values("route"):
                route = _sip_uri(uri_of(routes[0]), "Route")
                if not hs.domain.is_ours(route):
                    return route
                onward.pop("route")
                record = hs.bindings.find(unescape(route.user)) if route.user else None
                if record is not None and record.is_gateway:
                    return record
            uri = _sip_uri(onward.uri, "Request-URI")
        if not hs.domain.is_ours(uri):
            return uri
        if not uri.user:
            return None
        record = hs.bindings.find(unescape(uri.user))
        if record is None:
            raise SipError(404)
        return record

    def _targets(self, destination: Record | Uri, onward: Request, wall: float) -> list[list[Hop]]:
        """The places to send to, each with its ways, best first."""
        if not isinstance(destination, Record):
            return [[Hop(onward.uri, None, destination)]]
        return self._reach(destination, onward.uri, onward, wall, set())

    def _reach(self, record: Record, uri: str, onward: Request, wall: float, seen: set[str]) -> list[list[Hop]]:
        if record.is_gateway:
            hops = self._gateway_hops(record, uri, onward, wall)
            return [hops] if hops else []
        if record.user in seen:
            return []  # two users registered at each other
        seen.add(record.user)
        legs: list[list[Hop]] = []
        for binding in record.live(wall):
            contact = parse(binding.contact)
            if self._hs.domain.is_ours(contact):
                inner = self._hs.bindings.find(unescape(contact.user))
                if inner is not None:
                    legs += self._reach(inner, binding.contact, onward, wall, seen)
            else:
                flow = self._flow(binding)
                # Headers of a Contact URI may not stand in a Request-URI (§19.1.1).
                uri = str(contact._replace(header_text="")) if "?" in binding.contact else binding.contact
                legs.append([Hop(uri, flow, contact if flow is None else None)])
        return legs

    def _gateway_hops(self, record: Record, uri: str, onward: Request, wall: float) -> list[Hop]:
        """The flows of a SIP-NMS by Priority; those that lately did not answer come last (MH-11)."""
        hs = self._hs
        own = self._record_route(record, onward)
        hops: list[Hop] = []
        for binding in record.live(wall):
            flow = self._flow(binding)
            if flow is not None:
                hops.append(Hop(uri, flow, None, own, True, record.user))
                continue
            contact = parse(binding.contact)
            if is_address(host_port(contact)[0]):
                hops.append(Hop(uri, None, contact, own, True))
            else:  # below another SIP-NMS: its home server knows the way to it (RO-11)
                hops.append(Hop(uri, None, contact, (*own, f"Route: <{contact.with_param('lr')}>"), True))
        if hs.suspects and len(hops) > 1:
            hops.sort(key=lambda hop: hop.flow in hs.suspects)
        return hops

    def flows_of(self, gateway: str, wall: float) -> list[Flow]:
        """The flows that a SIP-NMS has now, best Priority first."""
        record = self._hs.bindings.find(gateway)
        flows = map(self._flow, record.live(wall)) if record is not None else ()
        return [flow for flow in flows if flow is not None]

    def _record_route(self, record: Record, onward: Request) -> tuple[str, ...]:
        """RO-7: the SIP-NMS's URI, unless it is there already."""
        if onward.to_tag or onward.method not in RECORD_ROUTED:
            return ()
        for value in onward.values("record-route"):
            try:
                uri = parse(uri_of(value))
            except UriError:
                continue
            if uri.is_sip and unescape(uri.user) == record.user and self._hs.domain.is_ours(uri):
                return ()
        return (f"Record-Route: <{self._hs.domain.uri(record.user)};lr>",)

    def _flow(self, binding: Binding) -> Flow | None:
        """The flow of a binding if it still exists: a connection that has ended does not."""
        flow = binding.flow
        if flow is None or (flow.reliable and flow not in self._hs.connected):
            return None
        return flow

    # ------------------------------------------------------------------------------------------------------ who may

    def _authorise(self, request: Request, destination: Record | Uri, flow: Flow, now: float) -> None:
        """Everybody may reach ours; only ours, once proven, may reach others. Raises the 407 or 403."""
        hs = self._hs
        inward = isinstance(destination, Record)
        if request.to_tag and (inward or hs.serves(request, flow, now)):
            return
        try:
            sender = parse(uri_of(request.value("from")))
        except UriError:
            raise SipError(400, "Malformed From header") from None
        if not sender.is_sip or not hs.domain.is_ours(sender):
            if inward:
                return
            raise SipError(403, "No relaying")
        user = unescape(sender.user)
        record = hs.bindings.find(user)
        if inward and not hs.settings.users and record is None and user not in hs.settings.accounts:
            return  # the domain's users live at another server
        name = hs.access.sender(request, hs.wall(now))
        if name != user and (record is None or name != record.account):
            raise SipError(403, "From is not the authenticated user")

    def _redirect(self, server: ServerTransaction, record: Record, wall: float, now: float) -> None:
        contacts = tuple(
            f"Contact: <{binding.contact}>;q={priority(binding.q)}{binding.features}" for binding in record.live(wall)
        )
        if not contacts:
            raise SipError(480)
        self._hs.respond(server, 302, now, headers=contacts)


def _sip_uri(text: str, what: str) -> Uri:
    try:
        uri = parse(text)
    except UriError:
        raise SipError(400, f"Malformed {what}") from None
    if not uri.is_sip:
        raise SipError(416)
    return uri


def _spread(onward: Request, legs: int) -> None:
    """Share the breadth that a request may still have out among its branches (RFC 5393 §5.3.3). Raises the 440."""
    text = onward.value("max-breadth")
    if not text and legs == 1:
        return
    if text and not (text.isdecimal() and text.isascii() and len(text) < 10):
        raise SipError(400, "Malformed Max-Breadth header")
    breadth = int(text) if text else MAX_BREADTH
    if breadth < legs:
        raise SipError(440)
    onward.set("max-breadth", str(breadth // legs))
