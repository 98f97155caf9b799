"""Phones on a wire, for the stories of `test_phone_*.py`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple

from sim.wire import Station, Wire
from sipnemo.roles.node import Command, Environment, Received, Send
from sipnemo.roles.phone.media import CloseStream, OpenStream, SetStream, StreamOpened
from sipnemo.roles.phone.node import Phone
from sipnemo.roles.phone.settings import Account, Settings
from sipnemo.sip.flow import Flow, Local
from sipnemo.sip.message import Request, Response, reply
from sipnemo.sip.parser import parse

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


class FarEnd:
    """A node without a will of its own: keeps what it receives, sends what a story tells it to."""

    def __init__(self, host: str, wire: Wire) -> None:
        self.deadline: float | None = None
        self.local = Local("UDP", host, 5060)
        self.seen: list[Request | Response] = []
        self._wire = wire
        self._branches = count(1)
        wire.add(self, self.local)

    def handle(self, input: Any, now: float) -> list[Any]:
        if isinstance(input, _Say):
            return [Send(input.data, Flow(self.local, input.to))]
        if isinstance(input, Received):
            self.seen.append(parse(input.data))
        return []

    def requests(self, method: str) -> list[Request]:
        """All requests of this method so far, retransmissions too."""
        return [message for message in self.seen if isinstance(message, Request) and message.method == method]

    def responses(self, method: str) -> list[Response]:
        """All responses to this method so far."""
        return [message for message in self.seen if isinstance(message, Response) and message.cseq_method == method]

    def say(self, data: bytes, to: str) -> None:
        """Send octets to a phone, and let them arrive."""
        station = next(station for station in self._wire.stations if station.node is self)
        self._wire.feed(station, _Say(data, (to, 5060)))
        self._wire.run(span=0.1)

    def answer(self, request: Request, status: int, *headers: str, tag: str = "far", body: str = "") -> None:
        """Respond to a request of a phone."""
        contact = f"Contact: <sip:far@{self.local.host}>"
        lines = (contact, *headers, *(("Content-Type: application/sdp",) if body else ()))
        host = request.value("via").split(" ")[1].partition(":")[0]
        self.say(reply(request, status, to_tag=tag, headers=lines, body=body), host)

    def request(
        self, method: str, uri: str, *headers: str, cseq: int = 1, to_tag: str = "", body: str = "", **more: str
    ) -> Request:
        """Send a request; `headers` are whole lines, `more` may set call_id, from_tag and branch."""
        host = uri.partition("@")[2].partition(":")[0]
        branch = more.get("branch") or f"z9hG4bKfar{next(self._branches)}"
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.local.host}:5060;branch={branch}",
            f"From: <sip:far@far.example>;tag={more.get('from_tag', 'far')}",
            f"To: <sip:near@near.example>{';tag=' + to_tag if to_tag else ''}",
            f"Call-ID: {more.get('call_id', 'call-of-far')}",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:far@{self.local.host}>",
            "Max-Forwards: 70",
            *headers,
        ]
        if body:
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body)}\r\n\r\n{body}")
        data = "\r\n".join(lines).encode("latin-1")
        self.say(data, host)
        parsed = parse(data)
        assert isinstance(parsed, Request)
        return parsed


class _Say(NamedTuple):
    data: bytes
    to: tuple[str, int]


def sdp(
    host: str = "10.0.0.9", port: int = 4000, *, version: int = 1, direction: str = "sendrecv", codec: int = 0
) -> str:
    """A description with one audio stream."""
    lines = ("v=0", f"o=- 9 {version} IN IP4 {host}", "s=-", f"c=IN IP4 {host}", "t=0 0")
    return "\r\n".join((*lines, f"m=audio {port} RTP/AVP {codec}", f"a={direction}", ""))
