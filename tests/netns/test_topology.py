"""The demo's world: everyone reaches whom they should, and each kind of cut cuts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipnemo.lab.line import Quality
from sipnemo.lab.namespace import available
from sipnemo.lab.topology import How, World, one_gateway

pytestmark = pytest.mark.skipif(bool(available()), reason=available())

ECHO = """
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 4000))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(data, peer)
"""
ASK = """
import socket, sys
source, target = sys.argv[1:3]
s = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[3]))
if source:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, source.encode())
try:
    s.sendto(b"hello", (target, 4000))
    print(s.recv(2048).decode())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(one_gateway(Quality(delay=1)), record=tmp_path) as made:
        echo = made.host("cn").popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        yield made


def ask(world: World, device: str, target: str = "192.0.2.20", patience: float = 5.0) -> str:
    argv = [sys.executable, "-c", ASK, device, target, str(patience)]
    return str(world.host("nms").run(argv, capture_output=True, text=True, check=True).stdout).strip()


def test_each_uplink_leads_to_the_correspondents_over_both_address_families(world: World) -> None:
    for target in ("192.0.2.20", "2001:db8::20"):
        for device, line in (("wan1", "uplink1"), ("wan2", "uplink2")):
            before = len(world.line(line).packets("down"))
            assert ask(world, device, target) == "hello"
            assert len(world.line(line).packets("down")) > before


@pytest.mark.parametrize("how", ["carrier", "address", "silent"])
def test_a_cut_uplink_carries_nothing_until_it_is_restored(world: World, how: How) -> None:
    assert ask(world, "wan1") == "hello"
    world.cut("uplink1", how=how)
    assert ask(world, "wan1", patience=0.3) != "hello"
    assert ask(world, "wan2") == "hello"
    world.restore("uplink1")
    assert ask(world, "wan1") == "hello"


def test_a_renumbered_uplink_works_from_its_new_address(world: World) -> None:
    world.renumber("uplink1", "198.51.100.8/24")
    assert ask(world, "wan1") == "hello"
