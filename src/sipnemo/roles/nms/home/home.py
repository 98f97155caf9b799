"""Registration with the SIP-HS: one flow per path, lost ones reported over surviving ones (RO-2, MH-7, MH-8).

`registration.py` keeps one flow registered; here is what is common to all. A SIP-HS that was silent and is heard again
may have lost everything. One flow asks first, and what its answer does not list follows (`audit.py`): so that the
return of a SIP-HS that has kept its bindings costs each gateway one REGISTER, spread over `BACK_WITHIN`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipnemo.roles.endpoint import host_text
from sipnemo.roles.nms.home.audit import Audit, Listed
from sipnemo.roles.nms.home.registration import Registration
from sipnemo.roles.node import Notice
from sipnemo.sip.digest_client import ClientAuth, Credentials
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request
from sipnemo.sip.uri import host_port
from sipnemo.sip.uri import parse as parse_uri

if TYPE_CHECKING:
    from sipnemo.roles.nms.node import MobilityServer
    from sipnemo.roles.nms.path.paths import Path

BACK_WITHIN = 5.0
"Seconds over which the first REGISTERs of all gateways are spread when the SIP-HS is heard again."
LOST_WITHIN = 2.0
"The same for flows that are not registered: incoming calls wait for them."
SILENCE = 5.0
"Seconds without any answer to any probe, at least, after which the SIP-HS may be another one."
MOST_LEFTOVERS = 16
"Contacts that one REGISTER takes out beside its own."


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
        self.call_id = node.ids.tag()
        self.tag = node.ids.tag()[:16]
        "Of From in every REGISTER."
        self.request_uri = f"{self.server.scheme}:{self._domain_port}"
        self.leftovers: dict[tuple[str, int], str] = {}
        "Contacts that the SIP-HS shall forget: by URI and reg-id, the Contact value that says so."
        self.audit = Audit(node, self)
        self._cseq = 0
        self._heard_at: float | None = None
        self._life = ""
        "What the SIP-HS has called its present run, where it says so."
        self._down = False
        "Its host has said that nobody listens there."
        self._told = False
        "Our URI has been said to who waits for it."

    def next_cseq(self) -> int:
        """One count for all flows (RFC 3261 §10.2)."""
        self._cseq += 1
        return self._cseq

    # -------------------------------------------------------------------------------------------- paths come and go

    def path_added(self, path: Path, now: float) -> None:
        """A path has come up: register it, whether or not its probes are answered yet."""
        flow = self.flows.get(path)
        if flow is None:
            flow = self.flows[path] = Registration(self._node, self, path)
        flow.register(now)

    def path_on(self, path: Path, now: float) -> None:
        """A path is ON again: where its Contact was taken out of the SIP-HS, register it anew."""
        flow = self.flows.get(path)
        if flow is None or not flow.taken_out:
            return
        if len(self._node.paths.on()) > 1:
            flow.register(now)
        else:  # all were silent: perhaps the SIP-HS was, and every gateway comes back now
            flow.taken_out = False
            flow.soon(now, LOST_WITHIN * self._node.ids.chance())

    def path_lost(self, path: Path, now: float) -> None:
        """Tell the SIP-HS over a surviving path that this one is not to be used, so that nobody is sent there (MH-8).

        Without one, the first path that registers tells it.
        """
        flow = self.flows.get(path)
        if flow is None:
            return
        flow.suspend()
        listed = flow.may_be_listed
        flow.registered = False
        flow.taken_out = True
        if listed:
            self.leftovers[flow.uri, flow.reg_id] = f"{flow.bare()};expires=0"
            survivor = next(
                (other for other in self._node.paths.on() if other is not path and other in self.flows), None
            )
            if survivor is not None:
                self.flows[survivor].register(now)

    def path_removed(self, path: Path, now: float) -> None:
        """The path exists no more."""
        self.path_lost(path, now)
        if self.flows.pop(path, None) is not None:
            self.moved()

    # -------------------------------------------------------------------------------------- what a REGISTER says too

    def removals(self) -> list[str]:
        """What the next REGISTER takes out of the SIP-HS.

        Never what names a URI or a reg-id that a flow has now: that flow's own REGISTER replaces it (RFC 5626 §6).
        """
        wanted = [flow for flow in self.flows.values() if flow.wanted]
        reg_ids = {flow.reg_id for flow in wanted if flow.reg_id}
        uris = {flow.uri for flow in wanted}
        for uri, reg_id in list(self.leftovers):
            if uri in uris or reg_id in reg_ids:
                del self.leftovers[uri, reg_id]
        return list(self.leftovers.values())[:MOST_LEFTOVERS]

    def around(self, by: Registration, listed: list[Listed]) -> list[str]:
        """What a REGISTER that was refused for its Priority says beside its own Contact, seeing what is listed.

        The other flows of ours that are listed come along with their Priorities of today, in one write; leftovers of
        an earlier configuration go.
        """
        values: dict[str, None] = {}
        others = [flow for flow in self.flows.values() if flow.wanted and flow is not by]
        for one in listed:
            if one.instance != self._node.settings.instance or one.is_at(by.uri) or one.reg_id == by.reg_id:
                continue
            known = next((flow for flow in others if one.is_at(flow.uri) or one.reg_id == flow.reg_id), None)
            values[one.removal if known is None else known.contact] = None
        return list(values)[:MOST_LEFTOVERS]

    def accepted(self, flow: Registration, beside: list[str]) -> None:
        """A REGISTER has been accepted, with what it said beside its own Contact."""
        self.audit.held(flow.uri)
        for key, value in list(self.leftovers.items()):
            if value in beside:
                del self.leftovers[key]

    def refused_removals(self) -> None:
        """What was to be taken out was out of order: what is left of it, the next answer tells."""
        self.leftovers.clear()

    def others_work(self, flow: Registration) -> bool:
        """Whether another flow is registered."""
        return any(other.registered for other in self.flows.values() if other is not flow)

    # ----------------------------------------------------------------------------------------- the SIP-HS is there

    def heard(self, life: str, now: float) -> None:
        """A probe has been answered; `life` is what the SIP-HS calls its present run, for a while after its start."""
        before, self._heard_at = self._heard_at, now
        another = bool(life) and life != self._life
        self._life = life or self._life
        if before is None:
            return
        silence = max(SILENCE, 3.0 * self._node.settings.probe.probe_idle_every)
        if another or self._down or now - before > silence:
            self._down = False
            self._back(now)

    def refused(self) -> None:
        """Nobody listens at the SIP-HS's address: its process is being started anew."""
        self._down = True

    def connection_closed(self, connection: Flow, now: float) -> None:
        """A connection of ours to the outside has ended."""
        for flow in self.flows.values():
            flow.carrier_closed(connection, now)

    def _back(self, now: float) -> None:
        """The SIP-HS is back, and may have forgotten us."""
        chance = self._node.ids.chance
        flows = [flow for flow in self.flows.values() if flow.wanted]
        asking = next((flow for flow in flows if flow.registered and flow.path.on), None)
        if asking is not None:
            asking.soon(now, BACK_WITHIN * chance())
        for flow in flows:
            if not flow.registered:
                flow.soon(now, LOST_WITHIN * chance())

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
            self._node.kept.uri()
            self._told = False
        if uri and not self._told:
            self._told = True
            self._node.act(Notice("registered", {"uri": uri}))

    def stop(self, now: float) -> None:
        """Take every flow out of the SIP-HS, over the best path."""
        flows = [flow for flow in self.flows.values() if flow.registered and flow.path.present]
        values = [f"{flow.bare()};expires=0" for flow in flows]
        for flow in self.flows.values():
            flow.suspend()
            flow.leaving = True
        best = next((flow for flow in flows if flow.path.on), None)
        if best is not None:
            best.unregister(values, now)
        else:
            for flow, value in zip(flows, values, strict=True):
                flow.unregister([value], now)
