"""The usual scene: a gateway with uplinks, phones behind it, its home server (also the phones'), phones outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sim.moody import MoodyPhone
from sipnemo.nemo.policy import Policy, priority
from sipnemo.roles.hs.node import HomeServer
from sipnemo.roles.hs.settings import HsSettings
from sipnemo.roles.nms.node import MobilityServer
from sipnemo.roles.nms.settings import EfaceSettings, IfaceSettings, MediaSettings, NmsSettings
from sipnemo.roles.phone.call import Call
from sipnemo.roles.phone.node import Phone
from sipnemo.roles.phone.settings import Account, Settings
from sipnemo.sim.network import Uplink
from sipnemo.sim.rtp import Stream
from sipnemo.sim.world import Station, World
from sipnemo.sip.flow import Local

HOME = "192.0.2.1"
INSIDE = "10.7.0.1"
INSTANCE = "urn:uuid:00000000-0000-4000-8000-00000000000a"
UPLINKS = (("wwan0", "198.51.100.7"), ("sat0", "203.0.113.7"), ("wifi0", "198.18.0.7"))
OUTSIDE = "192.0.2."
_REVERSED = {"sendrecv": "sendrecv", "sendonly": "recvonly", "recvonly": "sendonly", "inactive": "inactive"}
TRANSPORTS = ("UDP", "TCP")


class Fleet:
    """Everything, built and registered, with short ways to make calls and to break things."""

    def __init__(
        self,
        seed: int = 1,
        *,
        inside: int = 2,
        outside: int = 2,
        uplinks: int = 2,
        rtp_every: float = 0.02,
        policy: Policy = priority,
        nms: dict[str, Any] | None = None,
        hs: dict[str, Any] | None = None,
        phone: dict[str, Any] | None = None,
        settle: float = 3.0,
        transport: str = "UDP",
        homes: tuple[str, ...] = (HOME,),
    ) -> None:
        self.world = world = World(seed, rtp_every)
        for address in homes:
            world.names["home.example", "AAAA" if ":" in address else "A"] = ((address,),)
        self.inside_names = [f"in{n}" for n in range(1, inside + 1)]
        self.outside_names = [f"out{n}" for n in range(1, outside + 1)]
        users = {name: f"pw-{name}" for name in (*self.inside_names, *self.outside_names)}
        self.hs_settings = HsSettings(
            domain="home.example",
            listen=tuple(Local(transport, address, 5060) for address in homes for transport in TRANSPORTS),
            accounts={"fleet7": "secret7"},
            users=users,
            **(hs or {}),
        )
        self.hs = world.add("hs", lambda environment: HomeServer(self.hs_settings, environment), *homes)
        self.nms_settings = nms_settings(uplinks, **(nms or {}))
        self.nms = world.add("nms", lambda environment: MobilityServer(self.nms_settings, environment, policy))
        world.inside_link(self.nms, "lan0", INSIDE)
        self.uplinks = [world.add_uplink(self.nms, Uplink(device, address)) for device, address in UPLINKS[:uplinks]]
        world.run(1.0)
        self.phones: dict[str, Station] = {}
        for number, name in enumerate(self.inside_names):
            self.add_phone(name, f"10.7.0.{11 + number}", f"sip:{INSIDE}", transport, **(phone or {}))
        for number, name in enumerate(self.outside_names):
            self.add_phone(name, f"{OUTSIDE}{101 + number}", "", **(phone or {}))
        world.run(settle)

    # ---------------------------------------------------------------------------------------------------- building

    def add_phone(
        self, name: str, address: str, proxy: str, transport: str = "UDP", port: int = 5060, **settings: Any
    ) -> Station:
        """A phone with one account of the home server's users; inside ones have the gateway as outbound proxy."""
        locals_ = tuple(Local(t, address, port) for t in sorted(TRANSPORTS, key=lambda t: t != transport))
        if transport != "UDP" and proxy:
            proxy += f";transport={transport.lower()}"
        chosen = Settings(
            accounts=(Account(name=name, domain="home.example", password=f"pw-{name}"),),
            locals=locals_,
            listens=locals_,
            server="sip:home.example",
            proxy=proxy,
        )
        chosen = replace(chosen, **settings)
        station = self.world.add(name, lambda environment: MoodyPhone(chosen, environment), address)
        self.phones[name] = station
        return station

    # ------------------------------------------------------------------------------------------------------- calls

    def dial(self, caller: str, callee: str) -> str:
        """Place a call; its Call-ID."""
        return str(self.phones[caller].command("call", uri=f"sip:{callee}@home.example")["call_id"])

    def call(self, caller: str, callee: str, within: float = 5.0) -> str:
        """Place a call that is answered."""
        call_id = self.dial(caller, callee)
        assert self.world.run_until(lambda: self.up(caller, call_id) and self.up(callee, call_id), within), (
            f"{caller} → {callee} is not up: {self.story(call_id)}"
        )
        return call_id

    def up(self, name: str, call_id: str) -> bool:
        """Whether a phone has this call, answered."""
        phone = self.phones[name].node
        assert isinstance(phone, Phone)
        return any(
            known == call_id and call.state.value == "active" and call.unacknowledged is None
            for (known, _), call in phone.calls.items()
        )

    def hang_up(self, name: str, call_id: str = "") -> None:
        """A phone ends a call, or all it has."""
        self.phones[name].command("hangup", call_id=call_id or "all")

    def stream(self, name: str, call_id: str) -> Stream:
        """The media of one end of a call."""
        found = [s for s in self.world.phones.all if s.account == name and s.call_id == call_id]
        assert found, f"{name} has no media in {call_id}"
        return found[-1]

    def ended(self, name: str, call_id: str) -> dict[str, Any] | None:
        """How a call ended, as a phone tells it."""
        bodies = [body for body in self.phones[name].notices("ended") if body["call_id"] == call_id]
        return bodies[-1] if bodies else None

    def refuse_moves(self, name: str, *answers: int | tuple[int, str]) -> MoodyPhone:
        """What a phone answers to the next re-INVITEs: a status, or one with a header line; 0 is silence."""
        phone = self.phones[name].node
        assert isinstance(phone, MoodyPhone)
        phone.refusals = [(answer, ()) if isinstance(answer, int) else (answer[0], (answer[1],)) for answer in answers]
        phone.refused = []
        return phone

    def talking(self, call_id: str, *names: str, span: float = 1.0) -> bool:
        """Whether packets reach all these phones in the next `span` seconds, nearly all of them."""
        begin = self.world.now
        self.world.run(span)
        wanted = 0.9 * span / self.world.phones.every - 2
        return all(self.stream(name, call_id).received_between(begin, begin + span) >= wanted for name in names)

    def story(self, call_id: str) -> list[str]:
        """What the phones have said about a call, and the gateway in its log."""
        told = [
            (at, f"{at:.3f} {name} {event} {body.get('reason', '')}")
            for name, station in self.phones.items()
            for at, event, body in station.events
            if body.get("call_id") == call_id
        ]
        told += [
            (at, f"{at:.3f} nms {log.text} {dict(log.fields)}") for at, log in self.nms.logs if log.call_id == call_id
        ]
        return [text for _, text in sorted(told)]

    # ------------------------------------------------------------------------------------------------------- paths

    def cut(self, number: int) -> None:
        """Carrier loss on uplink `number` (0 is the first)."""
        self.uplinks[number].carrier = False
        self.world.tell(self.nms, self.uplinks[number])

    def mend(self, number: int) -> None:
        """Carrier and silence are over."""
        uplink = self.uplinks[number]
        uplink.silent = False
        if not uplink.carrier:
            uplink.carrier = True
            self.world.tell(self.nms, uplink)

    def silence(self, number: int) -> None:
        """A black hole: the link stays up, nothing gets through."""
        self.uplinks[number].silent = True

    def readdress(self, number: int, *addresses: str) -> None:
        """The interface has other addresses now; none: it has lost its address."""
        self.uplinks[number].addresses = list(addresses)
        self.world.tell(self.nms, self.uplinks[number])

    def operator(self, eface_id: int, state: str) -> Any:
        """`sipnemo path EFACE_ID off|on|auto`."""
        return self.nms.command("path", eface_id=eface_id, state=state)

    def uplink_of(self, call_id: str) -> str:
        """The address a call uses now."""
        for session in self.nms_node.calls.open:
            if session.call_id == call_id:
                return session.path.address
        return ""

    def told_host(self, call_id: str) -> str:
        """The address at which the far end of a call is told to send media."""
        for session in self.nms_node.calls.open:
            if session.call_id == call_id:
                return session.path.media_host
        return ""

    def moving(self, call_id: str) -> bool:
        """Whether a call is on its way to another path."""
        return any(session.call_id == call_id and session.move is not None for session in self.nms_node.calls.open)

    @property
    def nms_node(self) -> MobilityServer:
        assert isinstance(self.nms.node, MobilityServer)
        return self.nms.node

    @property
    def hs_node(self) -> HomeServer:
        assert isinstance(self.hs.node, HomeServer)
        return self.hs.node

    # -------------------------------------------------------------------------------------------------------- the end

    def hang_up_everything(self) -> None:
        """All phones end all calls."""
        for station in self.phones.values():
            station.command("hangup", call_id="all")

    def offers_broken(self) -> list[str]:
        """What a phone was offered or answered against RFC 3264, at any time."""
        found: list[str] = []
        for name, station in self.phones.items():
            assert isinstance(station.node, MoodyPhone)
            found += [f"{name}: {text}" for text in station.node.watch.broken]
        return found

    def disagreements(self, call_id: str, *names: str) -> list[str]:
        """What the two ends of a call do not agree upon: directions, open offers, and where media go."""
        found: list[str] = []
        ends = [self.phone_call(name, call_id) for name in names]
        directions = [end.media.direction for end in ends if end is not None and end.media is not None]
        if len(directions) == 2 and directions[0] != _REVERSED[directions[1]]:
            found.append(f"{call_id[:8]}: {names[0]} has {directions[0]}, {names[1]} {directions[1]}")
        for name, end in zip(names, ends, strict=True):
            if end is None or end.media is None or end.media.remote is None:
                continue
            if end.media.offered:
                found.append(f"{call_id[:8]}: an offer of {name} is open")
            wanted = INSIDE if name in self.inside_names else self.told_host(call_id)
            crosses = all(other in self.inside_names for other in names)
            if end.media.remote.rtp[0] != wanted and not crosses and not end.media.remote.held:
                found.append(f"{call_id[:8]}: {name} sends to {end.media.remote.rtp[0]}, not to {wanted}")
        return found

    def held(self, call_id: str, *names: str) -> bool:
        """Whether one of the ends has the call on hold."""
        ends = [self.phone_call(name, call_id) for name in names]
        return any(end is not None and end.media is not None and end.media.direction != "sendrecv" for end in ends)

    def phone_call(self, name: str, call_id: str) -> Call | None:
        """A call as one of its phones has it."""
        phone = self.phones[name].node
        assert isinstance(phone, Phone)
        return next((call for (known, _), call in phone.calls.items() if known == call_id), None)

    def leaks(self, span: float = 80.0, crosstalk: bool = True) -> list[str]:
        """Let all timers of ended calls run out, then say what is left that should not be."""
        self.world.run(span)
        if self.nms_node._waiting:
            self.world.run(0.2)  # a question that was asked just now
        found = [f"phone {name}: {left}" for name, station in self.phones.items() for left in _left_in_phone(station)]
        found += [f"gateway: {left}" for left in _left_in_nms(self.nms)]
        found += [f"home: {left}" for left in _left_in_hs(self.hs_node)]
        if self.world.phones.open:
            found.append(f"{self.world.phones.open} RTP streams")
        foreign = sum(stream.foreign for stream in self.world.phones.all)
        if foreign and crosstalk:
            found.append(f"{foreign} packets reached another call")
        return found


def nms_settings(uplinks: int, **changes: Any) -> NmsSettings:
    """A gateway with that many uplinks."""
    efaces = tuple(
        EfaceSettings(id=number + 1, priority=number + 1, interface=device)
        for number, (device, _) in enumerate(UPLINKS[:uplinks])
    )
    settings = NmsSettings(
        home="sip:home.example",
        account="fleet7",
        password="secret7",
        instance=INSTANCE,
        iface=IfaceSettings(address=INSIDE),
        efaces=efaces,
        media=MediaSettings(ports=(16384, 16383 + 400)),
    )
    return replace(settings, **changes)


def _left_in_phone(station: Station) -> list[str]:
    phone = station.node
    assert isinstance(phone, Phone)
    left = []
    if phone.calls:
        left.append(f"calls {[(key[0][:8], call.state.value) for key, call in phone.calls.items()]}")
    if phone.layer.clients or phone.layer.servers:
        left.append(f"transactions {[*phone.layer.clients, *phone.layer.servers]}")
    if len(phone.timers) > 1:  # the next REGISTER
        left.append(f"{len(phone.timers)} timers")
    if phone._waiting:
        left.append(f"{len(phone._waiting)} tickets")
    if phone._callers:
        left.append("callers")
    return left


def _left_in_nms(station: Station) -> list[str]:
    nms = station.node
    assert isinstance(nms, MobilityServer)
    left = []
    if nms.calls.open or nms.calls.sessions:
        left.append(f"sessions {[(s.call_id[:8], s.status.name, s.path.name) for s in nms.calls.open]}")
    if nms.ports.used or nms.ports.misreleased:
        left.append(f"{nms.ports.used} ports, {nms.ports.misreleased} released twice")
    if station.plane.flows:
        left.append(f"{len(station.plane.flows)} flows")
    clients = [key for key in nms.layer.clients if not key.endswith("REGISTER")]
    if clients or nms.layer.servers:
        left.append(f"transactions {clients}, {list(nms.layer.servers)}")
    if any(path.sessions for path in nms.paths.all):
        left.append("sessions on paths")
    handover = nms.handover
    if handover._watching or handover._unheard or not handover.pacing.idle:
        left.append("moves")
    if len(nms.settling) or len(nms.doubling):
        left.append(f"{len(nms.settling)} calls on paths they have left, {len(nms.doubling)} pairs of paths")
    # The sweep; per path a probe, its check, those confirming it, and a registration.
    if len(nms.timers) > 1 + 8 * len(nms.paths.all):
        left.append(f"{len(nms.timers)} timers")
    if len(nms._waiting) > 1:
        left.append(f"{len(nms._waiting)} tickets")
    return left


def _left_in_hs(hs: HomeServer) -> list[str]:
    left = []
    clients = list(hs.layer.clients)
    servers = [key for key in hs.layer.servers if not key.endswith("REGISTER")]
    if clients or servers:
        left.append(f"transactions {clients}, {servers}")
    if hs.calls:
        left.append(f"{len(hs.calls)} calls remembered")
    if len(hs._waiting) > 1:  # the gateway may just have registered anew, and the disk is slow
        left.append(f"{len(hs._waiting)} tickets")
    bindings = sum(len(record.bindings) for record in hs.bindings)
    timers = len(hs.timers) - len([key for key in hs.layer.servers if key.endswith("REGISTER")])
    if timers > 2 * bindings + 8:
        left.append(f"{timers} timers for {bindings} bindings")
    return left
