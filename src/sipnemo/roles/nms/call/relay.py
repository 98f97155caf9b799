"""Requests that belong to no call: MESSAGE, OPTIONS, PUBLISH, SUBSCRIBE and what follows it, both ways.

Here the SIP-NMS is nearly a proxy. It stays on the route towards the SIP-MN by a Record-Route of its I-face, and shows
the SIP-MN to the outside as `<sip:our-permanent-uri;mn=token>`, which leads here over whichever path is alive; so a
subscription needs no re-SUBSCRIBE when calls move.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipnemo.roles.endpoint import forwards, via_line
from sipnemo.roles.nms.call import translate
from sipnemo.roles.nms.call.targets import sip_uri, sized
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request, Response, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ClientTransaction, ServerTransaction

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer

FORMS_DIALOG = frozenset(("SUBSCRIBE", "REFER", "NOTIFY"))
USAGE_KEPT = 7200.0
"Seconds a subscription is remembered after its last SUBSCRIBE, NOTIFY or REFER."
MOST_USAGES = 20_000
"Subscriptions at a time; beyond: 503."


@dataclass(slots=True)
class Usage:
    """A dialog that is no call: requests from outside may reach the SIP-MN because of it."""

    flow: Flow
    target: str
    token: str
    until: float


class Relay:
    """Everything out of calls."""

    def __init__(self, node: MobilityServer) -> None:
        self._node = node
        self.usages: dict[tuple[str, str], Usage] = {}
        "By Call-ID and the SIP-MN's tag."

    def expire(self, now: float) -> None:
        """Forget subscriptions that have not been heard of."""
        for key in [key for key, usage in self.usages.items() if usage.until <= now]:
            del self.usages[key]

    def _remember(self, key: tuple[str, str], usage: Usage) -> None:
        if key not in self.usages and len(self.usages) >= MOST_USAGES:
            raise SipError(503, "Too many subscriptions", ("Retry-After: 60",))
        self.usages[key] = usage

    def outward(self, server: ServerTransaction, request: Request, now: float) -> None:
        """From a SIP-MN."""
        node = self._node
        left = forwards(request)
        routes = node.routes_behind_us(request)
        if not routes and node.is_us(request.uri):
            self._for_us(server, request, now)
            return
        next_uri = sip_uri(uri_of(routes[0]) if routes else request.uri)
        node.choose(None, now)  # 503 at once when no path is ON
        token = node.bindings.token_for(request, server.flow)
        contact = ""
        if request.method in FORMS_DIALOG:
            contact = f"{node.permanent_uri()};mn={token}"
            usage = Usage(server.flow, request.contact, token, now + USAGE_KEPT)
            self._remember((request.call_id, request.from_tag), usage)

        def build(target: Target, branch: str) -> tuple[bytes, Flow] | None:
            flow = node.way_out(target)
            if flow is None:
                return None
            own = [via_line(flow, branch), f"Max-Forwards: {left}", *(f"Route: {route}" for route in routes)]
            if request.method in FORMS_DIALOG and not request.to_tag:
                own += node.home.record_route_lines(request)
            own += translate.lines_of(request, "record-route")
            return translate.request(request, request.uri, own, request.cseq, request.body, contact), flow

        def located(targets: list[Target], at: float) -> None:
            if targets:
                node.attempt(
                    Passing(self, server, True),
                    request.method,
                    sized(targets, next_uri, request, request.body),
                    build,
                    at,
                )
            else:
                node.respond(server, 503, at)

        node.locate(next_uri, located, now)

    def inward(self, server: ServerTransaction, request: Request, now: float) -> None:
        """From outside: for a subscription we know, or by way of the SIP-HS."""
        node = self._node
        left = forwards(request)
        usage = self.usages.get((request.call_id, request.to_tag)) if request.to_tag else None
        if usage is None:
            if not node.home.trusts(server.flow):
                raise SipError(481 if request.to_tag else 403)
            mn = node.bindings.find(request, now)
            if mn is None:
                if not request.to_tag and node.is_us(request.uri) and request.method == "OPTIONS":
                    self._for_us(server, request, now)
                    return
                raise SipError(481 if request.to_tag else 404)
            flow, target, token = mn.flow, mn.contact, mn.token
        else:
            usage.until = now + USAGE_KEPT
            flow, target, token = usage.flow, usage.target, usage.token
        branch = node.ids.branch()
        own = [via_line(flow, branch), f"Max-Forwards: {left}"]
        if request.method in FORMS_DIALOG and not request.to_tag:
            own.append(node.inside_record_route(flow))
        own += translate.lines_of(request, "record-route")
        data = translate.request(request, target, own, request.cseq, request.body)
        passing = Passing(self, server, False)
        passing.token = token
        node.layer.request(passing, branch, request.method, data, flow, now)

    def _for_us(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A request to the gateway itself."""
        if request.method != "OPTIONS":
            raise SipError(404)
        self._node.respond(server, 200, now, headers=("Accept: application/sdp", "Supported: path, outbound"))


class Passing:
    """A request on its way, for the response on its way back."""

    __slots__ = ("_outward", "_relay", "_server", "token")

    def __init__(self, relay: Relay, server: ServerTransaction, outward: bool) -> None:
        self._relay = relay
        self._server = server
        self._outward = outward
        self.token = ""

    def on_response(self, client: ClientTransaction, response: Response, now: float) -> None:
        """Hand the response to whoever asked."""
        if response.status == 100 or self._server.finished:
            return
        node, asked = self._relay._node, self._server.request
        forms = asked.method in FORMS_DIALOG and not asked.to_tag
        routes = translate.lines_of(response, "record-route")
        contact = ""
        if self._outward:
            if asked.method == "SUBSCRIBE" and not asked.to_tag and response.status >= 300:
                self._relay.usages.pop((asked.call_id, asked.from_tag), None)
            if forms:
                routes.insert(0, node.inside_record_route(self._server.flow))
        else:
            routes = [line for line in routes if not node.is_us(uri_of(line[line.index(":") + 1 :].strip()))]
            if forms:
                routes = translate.lines_of(asked, "record-route")
                if response.to_tag and response.status < 300:
                    usage = Usage(client.flow, response.contact, self.token, now + USAGE_KEPT)
                    with suppress(SipError):  # without room, what comes of it must come by way of the SIP-HS
                        self._relay._remember((asked.call_id, response.to_tag), usage)
            contact = f"{node.permanent_uri()};mn={self.token}"
        self._server.respond(response.status, translate.response(response, asked, response.body, contact, routes), now)

    def on_failure(self, client: ClientTransaction, status: int, now: float) -> None:
        """No answer: say so."""
        if not self._server.finished:
            self._relay._node.respond(self._server, status, now)
