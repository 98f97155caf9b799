"""Phones on a wire, for the stories of `test_phone_*.py`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from sim.wire import Station, Wire
from sipnemo.roles.node import Command, Environment
from sipnemo.roles.phone.media import CloseStream, OpenStream, SetStream, StreamOpened
from sipnemo.roles.phone.node import Phone
from sipnemo.roles.phone.settings import Account, Settings
from sipnemo.sip.flow import Local

_tickets = count(1)


class Media:
    """The RTP engine as the core sees it: gives out ports and remembers what was set."""

    def __init__(self, wire: Wire) -> None:
        self._ports = count(20_000, 2)
        self.open: dict[tuple[int, int], SetStream | None] = {}
        "(station, stream) → what was set last."
        self.history: list[tuple[float, SetStream]] = []
        self._wire = wire
        wire.performers[OpenStream] = self._open
        wire.performers[SetStream] = self._set
        wire.performers[CloseStream] = self._close

    def of(self, station: Station) -> list[SetStream | None]:
        return [known for (owner, _), known in self.open.items() if owner == id(station)]

    def _open(self, station: Station, action: OpenStream) -> None:
        self.open[id(station), action.stream] = None
        self._wire.feed(station, StreamOpened(action.ticket, next(self._ports)))

    def _set(self, station: Station, action: SetStream) -> None:
        assert (id(station), action.stream) in self.open
        self.open[id(station), action.stream] = action
        self.history.append((self._wire.now, action))

    def _close(self, station: Station, action: CloseStream) -> None:
        del self.open[id(station), action.stream]


class Office:
    """A wire with phones at 10.0.0.1, 10.0.0.2, …"""

    def __init__(self, *, seed: int = 1, loss: float = 0.0, delay: float = 0.025) -> None:
        self.wire = Wire(seed, delay, loss)
        self.media = Media(self.wire)
        self._count = 0

    def phone(self, name: str, *, transport: str = "UDP", password: str = "", **settings: Any) -> Station:
        """A phone with one account; `settings` as in `Settings`."""
        self._count += 1
        local = Local(transport, f"10.0.0.{self._count}", 5060)
        accounts = (Account(name=name, domain=settings.pop("domain", local.host), password=password),)
        phone = Phone(
            Settings(accounts=accounts, locals=(local,), listens=(local,), **settings),
            Environment(seed=f"{name}{self._count}"),
        )
        return self.wire.add(phone, local)

    def command(self, station: Station, name: str, **arguments: Any) -> Mapping[str, Any]:
        """Give a command and let it take effect; the reply."""
        ticket = next(_tickets)
        self.wire.feed(station, Command(ticket, name, arguments))
        self.wire.run(span=0.0)
        reply: Mapping[str, Any] = station.replies[ticket]
        return reply

    def call(self, caller: Station, uri: str, seconds: float = 1.0) -> str:
        """Call and let time pass; the Call-ID."""
        call_id = self.command(caller, "call", uri=uri)["call_id"]
        self.wire.run(span=seconds)
        return str(call_id)


def calls(station: Station) -> int:
    """How many calls a phone has."""
    assert isinstance(station.node, Phone)
    return len(station.node.calls)


def nothing_left(station: Station) -> bool:
    """Whether no call, transaction or timer is left in a phone that does not register."""
    phone = station.node
    assert isinstance(phone, Phone)
    return not (phone.calls or phone.layer.clients or phone.layer.servers or len(phone.timers) or phone._callers)
