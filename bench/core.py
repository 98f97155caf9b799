"""Microseconds of the SIP-NMS's core per call, without sockets: `python bench/core.py [--profile]`.

One call is INVITE, 100, 180, 200, ACK, BYE, 200 with SDP: seven messages in, seven out.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import time

from sipnemo.roles.nms.node import MobilityServer
from sipnemo.roles.nms.settings import EfaceSettings, IfaceSettings, NmsSettings
from sipnemo.roles.node import Environment, Link, Received, Send, Tick
from sipnemo.sip import stun
from sipnemo.sip.flow import Flow, Local

INSIDE = Local("UDP", "10.7.0.1", 5060, "lan0")
MN = ("10.7.0.11", 5070)
CN = ("192.0.2.31", 5070)
HOME = ("192.0.2.10", 5060)
SDP = (
    "v=0\r\no=user1 53655765 2353687637 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\n"
    "m=audio {1} RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
)
OFFER = SDP.format(MN[0], 6000)
ANSWER = SDP.format(CN[0], 7000)


def settings() -> NmsSettings:
    """A gateway with two uplinks."""
    return NmsSettings(
        home="sip:192.0.2.10",
        account="fleet7",
        password="secret",
        instance="urn:uuid:11111111-2222-3333-4444-555555555555",
        iface=IfaceSettings(address="10.7.0.1"),
        efaces=(
            EfaceSettings(id=1, priority=1, interface="wan1", address=""),
            EfaceSettings(id=2, priority=2, interface="wan2", address=""),
        ),
    )


def ready() -> MobilityServer:
    """A gateway that is registered and whose paths are ON."""
    node = MobilityServer(settings(), Environment(seed="00" * 16))
    now = 0.0
    actions = node.handle(Tick(), now)
    actions += node.handle(Link("lan0", 2, True, ("10.7.0.1",)), now)
    for number, address in ((1, "198.51.100.7"), (2, "203.0.113.7")):
        actions += node.handle(Link(f"wan{number}", 2 + number, True, (address,)), now)
    for _ in range(4):
        following = []
        for action in actions:
            if isinstance(action, Send) and action.flow.remote == HOME:
                following += node.handle(Received(answer_home(action), action.flow), now + 0.01)
        actions = following
    assert len(node.paths.on()) == 2, node.report._status(now)
    return node


def answer_home(action: Send) -> bytes:
    """What the SIP-HS says."""
    if stun.is_stun(action.data):
        answer = stun.answer(action.data, (action.flow.local.host, 5060))
        assert answer is not None
        return answer
    lines = action.data.decode().split("\r\n")
    kept = [line for line in lines if line.partition(":")[0] in ("Via", "From", "To", "Call-ID", "CSeq", "Contact")]
    kept.append("P-Associated-URI: <sip:fleet7-abc@192.0.2.10>")
    return "\r\n".join(["SIP/2.0 200 OK", *kept, "Content-Length: 0\r\n\r\n"]).encode()


def request(method: str, number: int, cseq: int, to_tag: str, body: str = "", route: str = "") -> bytes:
    """What the SIP-MN sends."""
    return (
        f"{method} sip:correspondent@192.0.2.31:5070 SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP 10.7.0.11:5070;branch=z9hG4bK-{number}-{cseq}-{method}\r\n"
        f'From: "Caller" <sip:alice@192.0.2.20>;tag=caller{number}\r\n'
        f"To: <sip:correspondent@192.0.2.31>{to_tag}\r\n"
        f"Call-ID: {number}-bench@10.7.0.11\r\nCSeq: {cseq} {method}\r\n{route}"
        "Contact: <sip:alice@10.7.0.11:5070>\r\nMax-Forwards: 70\r\n"
        "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, REFER, NOTIFY, SUBSCRIBE, UPDATE\r\n"
        "Supported: replaces, timer\r\nUser-Agent: Bench/1.0\r\n"
        + ("Content-Type: application/sdp\r\n" if body else "")
        + f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def response(data: bytes, status: str, tag: str, body: str = "") -> bytes:
    """What the SIP-CN answers."""
    kept = []
    for line in data.decode().split("\r\n"):
        name = line.partition(":")[0]
        if name in ("Via", "From", "Call-ID", "CSeq", "Record-Route"):
            kept.append(line)
        elif name == "To":
            kept.append(line if ";tag=" in line else line + tag)
    extra = "Contact: <sip:callee@192.0.2.31:5070>\r\nServer: Bench/1.0\r\n"
    extra += "Content-Type: application/sdp\r\n" if body else ""
    head = "\r\n".join([f"SIP/2.0 {status}", *kept])
    return f"{head}\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Meter:
    """Calls through a node; only `handle` is timed."""

    def __init__(self, node: MobilityServer) -> None:
        self.node = node
        self.now = 1.0
        self.spent = 0.0

    def feed(self, data: bytes, flow: Flow) -> list[Send]:
        """One datagram; the sends that follow."""
        began = time.thread_time()
        actions = self.node.handle(Received(data, flow), self.now)
        self.node.deadline  # noqa: B018 (the shell asks after each input)
        self.spent += time.thread_time() - began
        for action in actions:
            if isinstance(action, Send) and stun.is_stun(action.data):
                self.node.handle(Received(answer_home(action), action.flow), self.now)
        return [action for action in actions if isinstance(action, Send) and not stun.is_stun(action.data)]

    def call(self, number: int) -> None:
        """One whole call."""
        self.now += 0.0002
        inside = Flow(INSIDE, MN)
        tag = f";tag=callee{number}"
        out = self.feed(request("INVITE", number, 1, "", OFFER), inside)
        invite = next(send for send in out if send.flow.remote == CN)
        for status in ("100 Trying", "180 Ringing"):
            self.feed(response(invite.data, status, tag), invite.flow)
        out = self.feed(response(invite.data, "200 OK", tag, ANSWER), invite.flow)
        assert out[0].flow.remote == MN
        route = "Route: <sip:10.7.0.1:5060;lr>\r\n"
        self.feed(request("ACK", number, 1, tag, route=route), inside)
        out = self.feed(request("BYE", number, 2, tag, route=route), inside)
        bye = next(send for send in out if send.flow.remote == CN)
        self.feed(response(bye.data, "200 OK", tag), bye.flow)


def main() -> None:
    """Measure, or show where the time goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    meter = Meter(ready())
    for number in range(500):
        meter.call(number)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    profile = cProfile.Profile()
    best = float("inf")
    for turn in range(5):
        meter.spent = 0.0
        if arguments.profile:
            profile.enable()
        for number in range(arguments.calls // 5):
            meter.call(1000 + turn * arguments.calls + number)
        profile.disable()
        best = min(best, meter.spent / (arguments.calls // 5))
    print(f"{best * 1e6:.1f} µs of core per call (best of 5)")
    assert not meter.node.calls.open
    if arguments.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
