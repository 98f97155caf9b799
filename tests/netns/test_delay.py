"""Delay lines: what passes, when, what never does, and what is remembered of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipnemo.lab.delay import OTHER, RTCP, RTP, SIP, STUN, classify
from sipnemo.lab.line import DelayLine, Quality
from sipnemo.lab.namespace import Namespace, Sandbox, available

needs_namespaces = pytest.mark.skipif(bool(available()), reason=available())

ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.0.0.2", 5060))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(data, peer)
"""
PING = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[2]))
s.sendto(b"warm", ("10.0.0.2", 5060))
for data in sys.argv[1].split("|"):
    before = time.monotonic()
    s.sendto(data.encode("latin-1"), ("10.0.0.2", 5060))
    try:
        while s.recv(2048) == b"warm":
            pass
        print(time.monotonic() - before)
    except TimeoutError:
        print("lost")
"""
OPTIONS = "OPTIONS sip:far SIP/2.0\r\nCall-ID: a\r\n\r\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Namespace, DelayLine]]:
    with Sandbox() as sandbox:
        near, wire, far = (sandbox.host(name) for name in ("near", "wire", "far"))
        sandbox.cable(near, "eth0", wire, "a")
        sandbox.cable(far, "eth0", wire, "b")
        near.add_address("eth0", "10.0.0.1/24")
        far.add_address("eth0", "10.0.0.2/24")
        line = DelayLine(wire, "a", "b", Quality(delay=25), record=tmp_path / "line")
        echo = far.popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        yield near, line
        line.close()


def ping(host: Namespace, *messages: str, patience: float = 10.0) -> list[str]:
    argv = [sys.executable, "-c", PING, "|".join(messages), str(patience)]
    return str(host.run(argv, capture_output=True, text=True, check=True).stdout).split()


@needs_namespaces
def test_a_packet_takes_the_delay_each_way_and_a_change_holds_at_once(world: tuple[Namespace, DelayLine]) -> None:
    near, line = world
    assert float(ping(near, "one")[0]) >= 0.050
    line.set("up", delay=0)
    line.set("down", delay=100)
    assert float(ping(near, "one")[0]) >= 0.100


@needs_namespaces
@pytest.mark.parametrize("direction", ["up", "down", None])
def test_a_black_hole_swallows_its_direction_until_it_is_closed(
    world: tuple[Namespace, DelayLine], direction: str | None
) -> None:
    near, line = world
    assert ping(near, "one") != ["lost"]
    line.set(direction, black_hole=True)  # type: ignore[arg-type]
    assert ping(near, "two", patience=0.3) == ["lost"]
    line.set(black_hole=False)
    assert ping(near, "three") != ["lost"]


@needs_namespaces
def test_full_loss_loses_and_a_slow_link_takes_its_time(world: tuple[Namespace, DelayLine]) -> None:
    near, line = world
    line.set(loss=100)
    assert ping(near, "one", patience=0.3) == ["lost"]
    line.set(loss=0, delay=0, rate=0.1)
    assert float(ping(near, "x" * 958)[0]) >= 2 * 1000 * 8 / 0.1e6


@needs_namespaces
def test_the_recording_knows_packets_and_sip_messages(world: tuple[Namespace, DelayLine]) -> None:
    near, line = world
    ping(near, OPTIONS)
    line.set("up", black_hole=True)
    ping(near, OPTIONS.replace("far", "lost"), patience=0.3)
    sip = [packet for packet in line.packets("up") if packet.kind == SIP]
    assert [packet.dropped for packet in sip] == [False, True]
    passed, lost = line.messages("up")
    assert (passed.source[0], passed.destination) == ("10.0.0.1", ("10.0.0.2", 5060))
    assert passed.data.decode() == OPTIONS
    assert (lost.dropped, b"sip:lost" in lost.data) == (True, True)
    assert len(line.messages("down")) == 1
    assert sip[0].at < line.messages("down")[0].at


ETHERNET = bytes(12)
IPV4 = bytes.fromhex("0800450000000000000040") + b"\x11" + bytes(10)
IPV4_TCP = bytes.fromhex("0800450000000000000040") + b"\x06" + bytes(10)
IPV6 = bytes.fromhex("86dd60000000000011") + bytes(33)
TCP_HEADER = bytes(12) + b"\x50" + bytes(7)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        pytest.param(IPV4 + bytes(8) + b"\x80\x00" + bytes(20), RTP, id="rtp"),
        pytest.param(IPV6 + bytes(8) + b"\x80\x80" + bytes(20), RTP, id="rtp with marker over ipv6"),
        pytest.param(IPV4 + bytes(8) + b"\x81\xc8" + bytes(20), RTCP, id="rtcp sender report"),
        pytest.param(IPV4 + bytes(8) + OPTIONS.encode(), SIP, id="sip"),
        pytest.param(IPV4_TCP + TCP_HEADER + b"SIP/2.0 200 OK\r\n", SIP, id="sip over tcp"),
        pytest.param(IPV4 + bytes(8) + bytes.fromhex("000100002112a442") + bytes(12), STUN, id="stun"),
        pytest.param(IPV4 + bytes(8) + b"HELLO" + bytes(20), OTHER, id="letters but not sip"),
        pytest.param(IPV4 + bytes(8), OTHER, id="empty"),
        pytest.param(bytes.fromhex("0806") + bytes(46), OTHER, id="arp"),
        pytest.param(b"", OTHER, id="nothing"),
        pytest.param(IPV4_TCP + bytes(8), OTHER, id="cut tcp header"),
    ],
)
def test_a_frame_is_told_by_its_first_octets(frame: bytes, kind: int) -> None:
    assert classify(ETHERNET + frame) == kind
