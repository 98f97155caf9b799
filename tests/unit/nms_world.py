"""A SIP-NMS with a clock, two uplinks and peers that are plain addresses: octets in, messages out, no network."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from sipnemo.media.flow import FlowKey, MediaPath
from sipnemo.nemo.policy import Policy, priority
from sipnemo.roles.nms.node import MobilityServer
from sipnemo.roles.nms.settings import EfaceSettings, IfaceSettings, NmsSettings
from sipnemo.roles.node import (
    Action,
    Counted,
    Environment,
    Input,
    Link,
    Log,
    ReadCounters,
    Received,
    Send,
    SetPath,
    Tick,
)
from sipnemo.sip import stun
from sipnemo.sip.errors import ParseError
from sipnemo.sip.flow import Address, Flow, Local
from sipnemo.sip.message import Message, Request, Response
from sipnemo.sip.parser import parse

HOME: Address = ("192.0.2.1", 5060)
PHONE: Address = ("10.7.0.11", 5060)
FAR: Address = ("192.0.2.9", 5060)
STRANGER: Address = ("192.0.2.66", 5060)
INSIDE = "10.7.0.1"
UPLINKS = {"wwan0": "198.51.100.7", "sat0": "203.0.113.7"}
URI = "sip:fleet7-a@home.example"
SETTINGS = NmsSettings(
    home="sip:192.0.2.1",
    account="fleet7",
    password="secret7",
    instance="urn:uuid:00000000-0000-4000-8000-00000000000a",
    iface=IfaceSettings(address=INSIDE),
    efaces=tuple(EfaceSettings(id=n, priority=n, interface=name) for n, name in enumerate(UPLINKS, 1)),
)


class Gateway:
    """The gateway, registered, with both paths ON; `sent` is what it has told each address."""

    def __init__(self, policy: Policy = priority, **changes: Any) -> None:
        self.now = 100.0
        self.sent: dict[Address, list[Message]] = {}
        self.flows: dict[int, Flow] = {}
        "By identity of a message: where it left."
        self.logs: list[Log] = []
        self.ways: dict[int, MediaPath] = {}
        "Where the media of each group leave."
        self.silent: set[str] = set()
        "Own addresses of uplinks over which nothing is answered by the SIP-HS any more."
        self.registers: list[Request] = []
        self.register_status: tuple[int, tuple[str, ...]] = (200, ())
        self.counters: dict[FlowKey, tuple[int, int]] = {}
        self.node = MobilityServer(replace(SETTINGS, **changes), Environment("0123456789abcdef" * 4), policy)
        self.feed(Tick())
        self.feed(Link("lan0", 2, True, (INSIDE,)))
        for index, (name, address) in enumerate(UPLINKS.items(), 3):
            self.feed(Link(name, index, True, (address,)))
        self.run(0.5)

    def feed(self, input: Input) -> None:
        """One input, and what the SIP-HS and the media plane answer to what follows from it."""
        pending = self.node.handle(input, self.now)
        while pending:
            pending = [follow for action in pending for follow in self._perform(action)]

    def _perform(self, action: Action) -> list[Action]:
        match action:
            case Log():
                self.logs.append(action)
            case SetPath(path):
                self.ways[path.group] = path
            case ReadCounters(ticket, keys):
                known = {key: self.counters[key] for key in keys if key in self.counters}
                return self.node.handle(Counted(ticket, known), self.now)
            case Send(data, flow) if data[0] < 4:
                answer = stun.answer(data, (flow.local.host, flow.local.port))
                if answer is not None and flow.local.host not in self.silent:
                    return self.node.handle(Received(answer, flow), self.now)
            case Send(data, flow):
                with suppress(ParseError):
                    return self._take(parse(data), flow)
            case _:
                pass
        return []

    def _take(self, message: Message, flow: Flow) -> list[Action]:
        self.flows[id(message)] = flow
        if isinstance(message, Request) and message.method == "REGISTER" and flow.remote == HOME:
            self.registers.append(message)
            if flow.local.host in self.silent:
                return []
            status, lines = self.register_status
            answer = response(message, status, f"P-Associated-URI: <{URI}>", *lines)
            return self.node.handle(Received(answer, flow), self.now)
        self.sent.setdefault(flow.remote, []).append(message)
        return []

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while (deadline := self.node.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.feed(Tick())
        self.now = end

    def local(self, at: str) -> Local:
        """Our UDP socket at one of our addresses."""
        if at == INSIDE:
            return next(local for local in self.node.inside if local.transport == "UDP")
        return next(path.locals["UDP"] for path in self.node.paths.all if path.address == at)

    def say(self, source: Address, data: bytes, at: str) -> None:
        """Octets from an address to one of ours."""
        self.feed(Received(data, Flow(self.local(at), source)))

    def request(self, source: Address, at: str, method: str, uri: str, *lines: str, **given: Any) -> str:
        """A request from an address to one of ours; its branch. `given` overrides from_, to, call_id, cseq, branch."""
        branch = str(given.get("branch") or f"z9hG4bK{method}{given.get('cseq', 1)}{len(self.flows)}")
        body = given.get("body", "")
        head = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {source[0]}:{source[1]};branch={branch}",
            "Max-Forwards: 70",
            f"From: {given.get('from_', '<sip:mn@else.example>;tag=mn')}",
            f"To: {given.get('to', '<sip:cn@192.0.2.9>')}",
            f"Call-ID: {given.get('call_id', 'c1')}",
            f"CSeq: {given.get('cseq', 1)} {method}",
            *lines,
            f"Content-Length: {len(body)}",
        ]
        self.say(source, "\r\n".join((*head, "", body)).encode("latin-1"), at)
        return branch

    def answer(
        self, source: Address, asked: Request, status: int, *lines: str, tag: str = "cn", body: str = ""
    ) -> None:
        """The answer to a request that was sent to an address, on the flow it came by."""
        self.feed(Received(response(asked, status, *lines, tag=tag, body=body), self.flows[id(asked)]))

    def got(self, at: Address, what: str) -> list[Any]:
        """What an address was sent, of one method or status."""
        return [m for m in self.sent.get(at, []) if what == _what(m)]

    def call(self, *lines: str, body: str = "", call_id: str = "c1") -> Request:
        """The phone calls the far end, which has not answered yet; the INVITE that it got."""
        contact = "Contact: <sip:mn@10.7.0.11>"
        self.request(PHONE, INSIDE, "INVITE", "sip:cn@192.0.2.9", contact, *lines, call_id=call_id, body=body)
        invite = self.got(FAR, "INVITE")[-1]
        assert isinstance(invite, Request)
        return invite

    def talk(self, call_id: str = "c1") -> Request:
        """A call between the phone and the far end, answered and acknowledged; the INVITE the far end got."""
        invite = self.call(call_id=call_id)
        self.answer(FAR, invite, 200, "Contact: <sip:cn@192.0.2.9>")
        self.request(PHONE, INSIDE, "ACK", "sip:cn@192.0.2.9", to="<sip:cn@192.0.2.9>;tag=cn", call_id=call_id)
        assert self.node.calls.open
        return invite


def _what(message: Message) -> str:
    return (
        message.method if isinstance(message, Request) else str(message.status) if isinstance(message, Response) else ""
    )


def response(asked: Request, status: int, *lines: str, tag: str = "cn", body: str = "") -> bytes:
    """A response to a request."""
    echoed = ("via", "from", "call-id", "cseq", "record-route")
    own = [line for name, line in zip(asked.names, asked.lines, strict=True) if name in echoed]
    to = f"To: {asked.value('to')}" + ("" if asked.to_tag or status == 100 else f";tag={tag}")
    head = (f"SIP/2.0 {status} Whatever", *own, to, *lines, f"Content-Length: {len(body)}")
    return "\r\n".join((*head, "", body)).encode("latin-1")


__all__ = [
    "FAR",
    "HOME",
    "INSIDE",
    "PHONE",
    "SETTINGS",
    "STRANGER",
    "UPLINKS",
    "URI",
    "Gateway",
    "Response",
    "response",
]
