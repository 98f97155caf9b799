"""Phones without any setting: SIP on its way through the gateway ends at the gateway."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from inside import open_udp

from sipnemo.lab.namespace import Namespace, Sandbox, available

pytestmark = [
    pytest.mark.skipif(bool(available()), reason=available()),
    pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/usr/bin:/sbin") is None, reason="nft is not installed"),
]

INTERCEPT = """
from sipnemo.shell.intercept import intercepting
with intercepting("lan0", {"UDP": 5060, "TCP": 5080}):
    print("ready", flush=True)
    input()
print("done", flush=True)
input()
"""


class World(NamedTuple):
    """phone ── lan0 gateway wan1 ── outside."""

    phone: Namespace
    gateway: Namespace
    outside: Namespace


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Sandbox() as sandbox:
        world = World(*(sandbox.host(name) for name in World._fields))
        sandbox.cable(world.phone, "eth0", world.gateway, "lan0")
        sandbox.cable(world.gateway, "wan1", world.outside, "eth0")
        world.phone.add_address("eth0", "10.7.0.2/24")
        world.gateway.add_address("lan0", "10.7.0.1/24")
        world.gateway.add_address("wan1", "192.0.2.1/24")
        world.outside.add_address("eth0", "192.0.2.99/24")
        world.phone.add_route(dst="default", gateway="10.7.0.1")
        world.outside.add_route(dst="10.7.0.0/24", gateway="192.0.2.1")
        world.gateway.set_sysctl("net/ipv4/ip_forward", 1)
        yield world


@contextmanager
def intercepted(gateway: Namespace) -> Iterator[subprocess.Popen[str]]:
    with gateway.python("-c", INTERCEPT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_sip_of_a_phone_ends_at_the_gateway_and_answers_seem_to_come_from_its_server(world: World) -> None:
    with (
        intercepted(world.gateway) as process,
        open_udp(world.phone, "10.7.0.2", 5070) as phone,
        open_udp(world.gateway, "10.7.0.1", 5060) as gateway,
        open_udp(world.outside, "192.0.2.99", 5060) as server,
        open_udp(world.outside, "192.0.2.99", 4000) as media,
    ):
        phone.sendto(b"REGISTER", ("192.0.2.99", 5060))
        assert gateway.recvfrom(100) == (b"REGISTER", ("10.7.0.2", 5070))
        gateway.sendto(b"200", ("10.7.0.2", 5070))
        assert phone.recvfrom(100) == (b"200", ("192.0.2.99", 5060))
        gateway.sendto(b"INVITE", ("10.7.0.2", 5070))
        assert phone.recvfrom(100) == (b"INVITE", ("192.0.2.99", 5060))

        phone.sendto(b"to the gateway itself", ("10.7.0.1", 5060))
        assert gateway.recvfrom(100)[0] == b"to the gateway itself"
        phone.sendto(b"media", ("192.0.2.99", 4000))
        assert media.recvfrom(100)[0] == b"media"
        server.sendto(b"from outside", ("10.7.0.2", 5070))
        assert phone.recvfrom(100)[0] == b"from outside"
        end(process)

    with (
        open_udp(world.phone, "10.7.0.2", 5071) as phone,
        open_udp(world.outside, "192.0.2.99", 5060) as server,
    ):
        phone.sendto(b"no gateway", ("192.0.2.99", 5060))
        assert server.recvfrom(100)[0] == b"no gateway"


def test_tcp_ends_at_its_own_port(world: World) -> None:
    script = "import socket; s = socket.create_connection(('192.0.2.99', 5060), 5); print(s.recv(9).decode())"
    with (
        intercepted(world.gateway) as process,
        open_udp(world.gateway, "10.7.0.1", 5080, socket.SOCK_STREAM) as listener,
    ):
        listener.listen()
        with world.phone.python("-c", script, stdout=subprocess.PIPE, text=True) as phone:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"welcome")
            assert phone.stdout is not None
            assert phone.stdout.readline() == "welcome\n"
        end(process)
