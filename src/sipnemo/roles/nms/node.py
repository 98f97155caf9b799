"""The SIP-NMS: which story does an input belong to? The stories are in the files beside this one.

`paths` and `probe` know which uplinks work; `home` keeps the SIP-HS informed; `bindings` lists the SIP-MNs, `calls` the
sessions. These begin in `inviting`, go on in `in_dialog` and `answers`, and change paths in `handover` and `reinvite`;
`own_requests` speaks for a SIP-MN where it must not be asked. `relay` carries everything out of calls, `report` answers
operators.
"""

from __future__ import annotations

from sipnemo.media.flow import INSIDE, MediaPath
from sipnemo.media.ports import PortPool
from sipnemo.nemo.policy import Policy, SessionView, priority
from sipnemo.roles.endpoint import Endpoint, host_text
from sipnemo.roles.nms.call.answers import Answers
from sipnemo.roles.nms.call.calls import Calls
from sipnemo.roles.nms.call.in_dialog import InDialog
from sipnemo.roles.nms.call.inviting import Inviting
from sipnemo.roles.nms.call.own_requests import OwnRequests
from sipnemo.roles.nms.call.relay import Relay
from sipnemo.roles.nms.call.rescue import fail_the_rest, rescue
from sipnemo.roles.nms.call.session import Session
from sipnemo.roles.nms.call.session_timers import SessionTimers
from sipnemo.roles.nms.call.strangers import Strangers
from sipnemo.roles.nms.call.suspension import Goodbyes, Suspension
from sipnemo.roles.nms.call.trunk import Trunk
from sipnemo.roles.nms.home.home import Home
from sipnemo.roles.nms.move.doubling import Doubling
from sipnemo.roles.nms.move.handover import Handover
from sipnemo.roles.nms.move.merging import Merging
from sipnemo.roles.nms.move.preparing import Preparing
from sipnemo.roles.nms.move.returning import Returning
from sipnemo.roles.nms.move.settling import Settling
from sipnemo.roles.nms.path.damping import Damping
from sipnemo.roles.nms.path.load import LoadMeter
from sipnemo.roles.nms.path.nat import Nat
from sipnemo.roles.nms.path.paths import Path, Paths
from sipnemo.roles.nms.path.pinholes import Pinholes
from sipnemo.roles.nms.path.probe import Prober
from sipnemo.roles.nms.phone.bindings import Bindings
from sipnemo.roles.nms.phone.kept import Kept
from sipnemo.roles.nms.phone.registering import Registering
from sipnemo.roles.nms.report import Report
from sipnemo.roles.nms.settings import NmsSettings
from sipnemo.roles.node import (
    Closed,
    Command,
    Environment,
    Finished,
    Input,
    Learned,
    Link,
    Listen,
    Notice,
    Reply,
    SendFailed,
    SetPath,
    Stop,
)
from sipnemo.sip import stun
from sipnemo.sip.errors import SipError
from sipnemo.sip.flow import Flow, Local
from sipnemo.sip.ids import Ids
from sipnemo.sip.message import Request, Response, uri_of
from sipnemo.sip.server_location import Target
from sipnemo.sip.transaction import ServerTransaction
from sipnemo.sip.uri import UriError, host_port, is_address
from sipnemo.sip.uri import parse as parse_uri

SWEEP_EVERY = 1.0
"Seconds between expiring bindings and subscriptions."
REFUSED = "Connection refused"
"Of a `SendFailed`: the far host itself has answered, with ICMP port unreachable."
GOODBYE = 1.0
"Seconds that deregistering may take."


class MobilityServer(Endpoint):
    """One gateway, whole; sans-IO."""

    def __init__(self, settings: NmsSettings, environment: Environment, policy: Policy = priority) -> None:
        super().__init__(environment, settings.limits)
        self.settings = settings
        self.policy = policy
        self.tokens = Ids(f"{settings.instance}{settings.password}")
        "Contact tokens must be the same after a restart: the SIP-MNs' servers know them."
        self.ports = PortPool(*settings.media.ports, settings.media.quarantine_after, environment.seed)
        self.paths = Paths(self)
        self.probers: dict[Path, Prober] = {}
        self.nat = Nat(self)
        self.pinholes = Pinholes(self)
        self.home = Home(self)
        self.strangers = Strangers(self)
        self.bindings = Bindings(self)
        self.kept = Kept(self)
        self.registering = Registering(self)
        self.calls = Calls(self)
        self.inviting = Inviting(self)
        self.in_dialog = InDialog(self)
        self.answers = Answers(self)
        self.merging = Merging(self)
        self.own_requests = OwnRequests(self)
        self.session_timers = SessionTimers(self)
        self.suspension = Suspension(self)
        self.goodbyes = Goodbyes(self)
        self.relay = Relay(self)
        self.damping = Damping(self)
        self.handover = Handover(self)
        self.settling = Settling(self)
        self.doubling = Doubling(self)
        self.returning = Returning(self)
        self.preparing = Preparing(self)
        self.load = LoadMeter(self)
        self.report = Report(self)
        self.trunk = Trunk(settings.trunk, self.ids)
        self.inside: dict[Local, str] = {}
        "Our listening points on the I-face, and the Record-Route line that leads back to each."
        self._inside_address = ""
        self._announced = False
        self.kept.restore_uri()
        self.timers.set(0.0, self.kept.restore_phones)
        self.timers.set(0.0, self._sweep)

    # ------------------------------------------------------------------------------------------------ dispatch

    def on_input(self, input: Input, now: float) -> None:
        """Everything that is no SIP message."""
        match input:
            case Link():
                self._inside_link(input, now)
                self.paths.link_changed(input, now)
            case SendFailed():
                path = self.paths.of(input.flow.local)
                if path is not None and path in self.probers and self.home.probe_target(path) == input.flow.remote:
                    if input.reason == REFUSED:
                        self.home.refused()
                        self.probers[path].refused(now)
                    else:
                        self.probers[path].failed(now)
            case Closed():
                if input.flow.local in self.inside:
                    self.bindings.connection_closed(input.flow)
                    self.calls.connection_closed(input.flow)
                else:
                    self.home.connection_closed(input.flow, now)
            case Learned():
                self.calls.learned(input)
            case Command():
                self.act(Reply(input.ticket, self.report.answer(input, now)))
            case Stop():
                self.home.stop(now)
                self.timers.set(now + GOODBYE, lambda at: self.act(Finished()))
            case _:
                pass

    def on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        """A new request, from inside or outside."""
        try:
            demanded = request.values("proxy-require") if "proxy-require" in request.names else ()
            if demanded:
                raise SipError(420, headers=(f"Unsupported: {', '.join(demanded)}",))
            if server.flow.local in self.inside:
                self._from_inside(server, request, now)
            else:
                self._from_outside(server, request, now)
        except SipError as error:
            if not server.finished:
                self.respond(server, error.status, now, reason=error.reason, headers=error.headers)
                if self._from_a_stranger(server, request):
                    server.terminate()  # nothing is kept for it, or repeated to an address that may be forged (§8.2.7)

    def _from_a_stranger(self, server: ServerTransaction, request: Request) -> bool:
        """Whether a request has come from outside, not from the SIP-HS, and belongs to no call."""
        known = server.flow.local in self.inside or self.home.trusts(server.flow)
        return not known and (request.call_id, request.to_tag) not in self.calls.sessions

    def _from_inside(self, server: ServerTransaction, request: Request, now: float) -> None:
        if request.to_tag and (request.call_id, request.from_tag) in self.calls.sessions:
            self.in_dialog.receive(server, request, True, now)
        elif request.method == "REGISTER":
            self.registering.register(server, request, now)
        elif request.method == "INVITE":
            if request.to_tag:
                raise SipError(481)
            self.inviting.from_mn(server, request, now)
        elif request.to_tag and request.method in ("BYE", "UPDATE", "PRACK", "INFO"):
            raise SipError(481)
        else:
            self.relay.outward(server, request, now)

    def _from_outside(self, server: ServerTransaction, request: Request, now: float) -> None:
        if request.to_tag and (request.call_id, request.to_tag) in self.calls.sessions:
            self.in_dialog.receive(server, request, False, now)
        elif request.method == "INVITE":
            self._invited(server, request, now)
        elif request.method == "REGISTER" or (request.to_tag and request.method in ("BYE", "UPDATE", "PRACK", "INFO")):
            raise SipError(481 if request.to_tag else 403)
        else:
            self.relay.inward(server, request, now)

    def _invited(self, server: ServerTransaction, request: Request, now: float) -> None:
        if request.to_tag:
            raise SipError(481)
        if not self.home.trusts(server.flow) and not self.calls.replaces(request):
            self.strangers.refused(server.flow, request.call_id, now)
            raise SipError(403)
        mn = self.bindings.find(request, now)
        if mn is None:
            raise SipError(480 if "mn=" in request.uri else 404)
        path = self.paths.of(server.flow.local)
        if path is None:
            raise SipError(503)
        if not path.on or self.damping.is_suppressed(path):  # or in hold-down, or drained: the answer names another
            path = next(iter(self.ranked(None)), path)
        self.inviting.from_cn(server, request, mn, path, now)

    def on_ack(self, request: Request, flow: Flow, now: float) -> None:
        """The ACK of a 2xx."""
        self.in_dialog.ack(request, flow.local in self.inside, now)

    def on_cancel(self, server: ServerTransaction, cancelled: ServerTransaction, now: float) -> None:
        """A caller gives up."""
        self.in_dialog.cancel(cancelled, now)

    def on_send_failed(self, flow: Flow, now: float) -> None:
        """That nothing arrives over a path that is OFF is no answer: what can go by another waits for it (`rescue`)."""
        path = self.paths.of(flow.local)
        if flow.local in self.inside or (path is not None and path.on):
            self.layer.transport_failed(flow, now)
        else:
            fail_the_rest(self, flow, now)

    def on_repeated(self, server: ServerTransaction, request: Request, flow: Flow, now: float) -> None:
        """The SIP-HS has sent a request again by another path of ours: it expects the answer there."""
        path = self.paths.of(flow.local)
        if path is not None and path.on and self.home.trusts(server.flow) and self.home.trusts(flow):
            server.flow = flow

    def on_stray(self, response: Response, flow: Flow, now: float) -> None:
        """A 2xx of an INVITE given up meanwhile still wants its ACK, or its sender would end the call."""
        if response.cseq_method == "INVITE" and 200 <= response.status < 300:
            self.own_requests.stray_answer(response, flow, now)

    def on_stun(self, data: bytes, flow: Flow, now: float) -> None:
        """An answer to a probe of ours; requests are not answered: nobody has a reason to ask."""
        path = self.paths.of(flow.local)
        if path is None or path not in self.probers:
            return
        try:
            message = stun.decode(data)
        except stun.StunError:
            return
        if isinstance(message, stun.Success):
            if self.probers[path].answered(message.transaction_id, message.mapped, now):
                self.home.heard(message.software, now)
        elif isinstance(message, stun.Failure) and self.probers[path].answered(message.transaction_id, None, now):
            self.home.heard("", now)

    # -------------------------------------------------------------------------------------------- paths change

    def path_added(self, path: Path, now: float) -> None:
        """A path has come up: register over it and probe it."""
        if path not in self.probers:
            self.probers[path] = Prober(self, path)
            self.nat.added(path)
        if path.present:
            self.home.path_added(path, now)
            self.probers[path].start(now)

    def path_removed(self, path: Path, now: float) -> None:
        """Its address is gone."""
        self.home.path_removed(path, now)
        prober = self.probers.pop(path, None)
        if prober is not None:
            prober.stop()
        self.nat.removed(path)

    def path_on(self, path: Path, now: float) -> None:
        """A path can carry calls."""
        if not self._announced:
            self._announced = True
            self.act(Notice("ready"))
        for session in list(self.calls.open):
            self.calls.apply_media(session)
        self.home.path_on(path, now)
        self.handover.path_on(path, now)
        self.goodbyes.path_on(now)
        self.returning.maybe(path, now)
        self.registering.path_on(now)
        rescue(self, now)

    def path_off(self, path: Path, cause: str, now: float) -> None:
        """A path must carry no calls."""
        self.damping.flapped(path, cause, now)
        self.settling.path_off(path, now)
        self.doubling.paths_changed(path)
        self.handover.path_off(path, cause, now)
        self.home.path_lost(path, now)  # a drained one too: who calls now shall come by another
        if self.paths.on():
            rescue(self, now)
        else:
            self.suspension.begins(now)
        if not path.present:
            self.probers[path].stop()

    def path_died(self, path: Path, cause: str, now: float) -> None:
        """A path that was OFF already, by command, carries nothing any more."""
        self.doubling.paths_changed(path)
        self.handover.path_died(path, cause, now)
        rescue(self, now)

    def prober_hurry(self, path: Path) -> None:
        """A path has got its first call: probe it at the pace of a path with calls."""
        prober = self.probers.get(path)
        if prober is not None and prober.at_ease and len(path.sessions) == 1:
            self.timers.set(0.0, prober.hurry)

    def last_heard(self, path: Path) -> float | None:
        """When the path last proved alive."""
        prober = self.probers.get(path)
        return prober.heard_at if prober is not None else None

    # ------------------------------------------------------------------------------------------------- choosing

    def ranked(self, session: Session | SessionView | None) -> list[Path]:
        """Paths that are ON, the one the policy likes best for this session first (MH-6), those that flap last."""
        ranked = self._liked(session)
        return self.damping.last(ranked) if self.damping.suppressed and len(ranked) > 1 else ranked

    def _liked(self, session: Session | SessionView | None) -> list[Path]:
        paths = self.paths.on()
        if len(paths) < 2 or self.policy is priority:  # they are kept in that order
            return paths
        entries = [path.entry(self.settings.instance) for path in paths]
        view = session if isinstance(session, SessionView) else SessionView(session.call_id if session else "")
        by_key = {entry.key: path for entry, path in zip(entries, paths, strict=True)}
        return [by_key[entry.key] for entry in self.policy(entries, view) if entry.key in by_key]

    def choose(self, session: SessionView | None, now: float) -> Path:
        """The path for something new; 503 when none is ON."""
        ranked = self.ranked(session) or self.doubtful()
        if not ranked:
            raise SipError(503, "No uplink", ("Retry-After: 5",))
        return ranked[0]

    def doubtful(self) -> list[Path]:
        """Paths that are OFF only because the SIP-HS does not answer: better a try than a refusal."""
        return [path for path in self.paths.all if path.present and path.wanted and path.reason == "probe"]

    def way_out(self, target: Target) -> Flow | None:
        """The flow to a target over the best path that fits it, as things are now."""
        paths = self.ranked(None) or self.doubtful()
        return next((flow for path in paths if (flow := path.flow_to(target)) is not None), None)

    def admit_session(self) -> None:
        """Refuse what would be one call too many."""
        if len(self.calls.open) >= self.settings.session.calls:
            raise SipError(503, "Too many calls", ("Retry-After: 10",))

    # ---------------------------------------------------------------------------------------------------- names

    def permanent_uri(self) -> str:
        """Our URI under the home domain, or, before the SIP-HS has named it, the contact of the best path."""
        if self.home.uri:
            return self.home.uri
        ranked = self.ranked(None)
        if not ranked:
            raise SipError(503, "No uplink", ("Retry-After: 5",))
        return ranked[0].contact("UDP")

    def is_us(self, text: str) -> bool:
        """Whether a URI names this gateway: one of its addresses, or its permanent URI."""
        try:
            uri = parse_uri(text)
        except UriError:
            return False
        if not uri.is_sip:
            return False
        if self.home.uri:
            ours = parse_uri(self.home.uri)
            if uri.user == ours.user and uri.host.lower() == ours.host.lower():
                return True
        host, port = host_port(uri)
        if any(local.host == host and local.port == port for local in self.inside):
            return True
        return any(path.named(host, port) for path in self.paths.all)

    def routes_behind_us(self, request: Request) -> list[str]:
        """The Route of a request from a SIP-MN, without the entries that name us (RFC 3261 §16.4)."""
        return [route for route in request.values("route") if not self.is_us(uri_of(route))]

    def inside_record_route(self, flow: Flow) -> str:
        """The Record-Route line by which a SIP-MN's requests come back to us."""
        return self.inside.get(flow.local) or next(iter(self.inside.values()), "")

    def way_inside(self, contact: str, flow: Flow) -> Flow:
        """How a SIP-MN is reached: over its own connection, or at its Contact's address where that is one."""
        if flow.reliable:
            return flow
        try:
            uri = parse_uri(contact)
        except UriError:
            return flow
        host, port = host_port(uri)
        return Flow(flow.local, (host, port)) if host == flow.remote[0] else flow

    def at_contact(self, contact: str, flow: Flow) -> Flow:
        """A new flow to a SIP-MN at the address its Contact names; the old one where it names none."""
        try:
            host, port = host_port(parse_uri(contact))
        except UriError:
            return flow
        return Flow(flow.local, (host, port)) if is_address(host) else flow

    # ------------------------------------------------------------------------------------------------ housekeeping

    def _inside_link(self, link: Link, now: float) -> None:
        iface = self.settings.iface
        addresses = link.addresses
        if iface.interface:
            if link.name != iface.interface or not addresses:
                return
            address = iface.address or addresses[0]
        elif iface.address in addresses:
            address = iface.address
        else:
            return
        if address == self._inside_address:
            return
        self._inside_address = address
        self.act(SetPath(MediaPath(INSIDE, address, link.name)))
        for transport in iface.transports:
            port = iface.tls_port if transport == "TLS" else iface.port
            local = Local(transport, address, port, link.name)
            suffix = "" if transport == "UDP" else f";transport={transport.lower()}"
            self.inside[local] = f"Record-Route: <sip:{host_text(address)}:{port}{suffix};lr>"
            self.act(Listen(local))
        self.kept.inside_changed()
        self.log("info", "serving phones", address=address)

    def _sweep(self, now: float) -> None:
        self.timers.set(now + SWEEP_EVERY, self._sweep)
        self.bindings.expire(now)
        self.relay.expire(now)
        self.load.measure(now)
        self.pinholes.keep(now)
        self.calls.lost.end(now)
