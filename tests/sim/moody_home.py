"""A home server with bad days: refuses registrations, is slow, forgets, and takes note of what it was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.fleet import HOME, INSTANCE, Fleet
from sipnemo.roles.hs.bindings import TABLE, Binding, Record
from sipnemo.roles.hs.node import HomeServer
from sipnemo.roles.node import Tick
from sipnemo.roles.phone.node import Phone
from sipnemo.sip.flow import Flow
from sipnemo.sip.message import Request
from sipnemo.sip.transaction import ServerTransaction

Refusal = tuple[int, tuple[str, ...]]
GATEWAY = "fleet7"


class MoodyHome(HomeServer):
    """Answers REGISTERs as a story wants it to, those of gateways or of phones."""

    def on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        """Answer, or do what the story says."""
        if request.method == "REGISTER":
            is_gateway = f"sip:{GATEWAY}@" in request.value("to")
            seen: list[tuple[float, Request]] = self.__dict__.setdefault("seen" if is_gateway else "seen_of_phones", [])
            seen.append((now, request))
            mood: Callable[[Request], Refusal | None] | None = self.__dict__.get("mood")
            refusal = mood(request) if mood is not None and is_gateway else None
            if not is_gateway:
                refusal = self.__dict__.get("for_phones")
            if refusal is not None:
                status, headers = refusal
                self.respond(server, status, now, headers=headers)
                return
        super().on_request(server, request, now)


class Home:
    """What a story does to the home server of a fleet, and what it looks at."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.station = fleet.hs
        self.station._build = lambda environment: MoodyHome(fleet.hs_settings, environment)
        fleet.hs_node.__class__ = MoodyHome
        self._receive = self.station.host.receive

    @property
    def node(self) -> MoodyHome:
        """The server as it is now."""
        assert isinstance(self.station.node, MoodyHome)
        return self.station.node

    def refuse(self, mood: Callable[[Request], Refusal | None] | Refusal | None) -> None:
        """What it answers to a gateway's REGISTERs from now on; None: what it should."""
        self.node.__dict__["mood"] = mood if mood is None or callable(mood) else lambda _request: mood

    def refuse_phones(self, refusal: Refusal | None) -> None:
        """What it answers to the REGISTERs of phones."""
        self.node.__dict__["for_phones"] = refusal

    def believe(self, name: str) -> None:
        """Whoever registers as this user needs no password."""
        access = self.node.access
        asked = access.registrant
        access.registrant = lambda request, wall: (  # type: ignore[method-assign]
            name if f"sip:{name}@" in request.value("to") else asked(request, wall)
        )

    def knows(self, name: str) -> bool:
        """Whether a phone is bound there now."""
        record = self.node.bindings.find(name)
        return record is not None and bool(record.live(self.node.wall(self.fleet.world.now)))

    def asked(self, since: float = 0.0, phones: bool = False) -> list[tuple[float, Request]]:
        """REGISTERs of the gateway since an instant, those of this life of the server."""
        seen: list[Any] = self.node.__dict__.get("seen_of_phones" if phones else "seen", [])
        return [(at, request) for at, request in seen if at >= since]

    def slow(self, seconds: float) -> None:
        """Every SIP message reaches it this much later; its host answers probes at once."""

        def late(data: bytes, flow: Flow) -> None:
            if data[0] < 4 or not seconds:
                self._receive(data, flow)
            else:
                self.fleet.world.clock.after(seconds, self._receive, data, flow)

        self.station.host.receive = late

    def restart(self, empty: bool = False, after: float = 0.0) -> None:
        """kill -9 and a new start, at once or later, with its store or without."""
        self.station.kill()
        self.fleet.world.run(after)
        if empty:
            self.station.rows.clear()
        self.station.restart()

    @property
    def record(self) -> Record | None:
        """What it has of the gateway."""
        return next((record for record in self.node.bindings if record.instance == INSTANCE), None)

    def listed(self) -> dict[int, str]:
        """The gateway's Contacts by reg-id."""
        record = self.record
        live = record.live(self.node.wall(self.fleet.world.now)) if record is not None else []
        return {binding.reg_id: binding.contact for binding in sorted(live, key=lambda known: known.reg_id)}

    def change(self, changed: Callable[[dict[str, Binding]], None]) -> None:
        """Change what it has of the gateway behind everybody's back."""
        record = self.record
        assert record is not None
        bindings = dict(record.bindings)
        changed(bindings)
        record.bindings = bindings
        self.station.rows[TABLE][record.user] = record.row()


def register(fleet: Fleet, name: str) -> None:
    """A phone refreshes its registration now."""
    station = fleet.phones[name]
    assert isinstance(station.node, Phone)
    for user in station.node.users.values():
        assert user.registration is not None
        user.registration.start(fleet.world.now)
    station.handle(Tick())


__all__ = ["HOME", "Home", "MoodyHome", "register"]
