"""Two uplinks in one network, told apart by their neighbours."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from teller import Teller

from sipnemo.lab.namespace import Namespace, Sandbox, available

pytestmark = pytest.mark.skipif(bool(available()), reason=available())

ONE, TWO, ROUTER = "198.51.100.7", "198.51.100.8", "198.51.100.1"
UPLINKS = "wan1,wan2"
CHECK = """
import json, sys
from sipnemo.shell.check_routes import check_routes
from sipnemo.shell.uplink_routes import UplinkPath
print(json.dumps(check_routes([UplinkPath("wan1", sys.argv[1]), UplinkPath("wan2", sys.argv[2])], sys.argv[3])))
"""
SAY = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 9))"


class Street(NamedTuple):
    """A gateway with two uplinks in the network of one router."""

    gateway: Namespace
    switch: Namespace
    router: Namespace

    def neighbour(self, address: str) -> str:
        """The state of an address in the router's neighbour table, once it is settled: REACHABLE, FAILED, …"""
        self.router.run(["ip", "neigh", "flush", "all"], check=True)
        self.router.run([sys.executable, "-I", "-S", "-c", SAY, address], check=True)
        deadline = time.monotonic() + 15
        while True:
            shown = self.router.run(["ip", "-json", "neigh", "show", address], stdout=subprocess.PIPE, check=True)
            states = [state for entry in json.loads(shown.stdout) for state in entry["state"]]
            if states and states != ["INCOMPLETE"]:
                return str(states[0])
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def street() -> Iterator[Street]:
    with Sandbox() as sandbox:
        gateway, switch, router = (sandbox.host(name) for name in ("gateway", "switch", "router"))
        for number, (host, device) in enumerate(((gateway, "wan1"), (gateway, "wan2"), (router, "eth0"))):
            sandbox.cable(host, device, switch, f"port{number}")
        switch.bridge("bridge", ["port0", "port1", "port2"])
        gateway.add_address("wan1", f"{ONE}/24")
        gateway.add_address("wan2", f"{TWO}/24")
        router.add_address("eth0", f"{ROUTER}/24")
        gateway.add_route(dst="default", gateway=ROUTER, device="wan1", metric=100)
        gateway.add_route(dst="default", gateway=ROUTER, device="wan2", metric=200)
        yield Street(gateway, switch, router)


@pytest.mark.req("R14", "RO-10")
def test_an_uplink_does_not_answer_for_another(street: Street) -> None:
    street.switch.set_link("port1", up=False)
    assert street.neighbour(TWO) == "REACHABLE"  # by the cable of the other uplink
    teller = Teller(street.gateway, UPLINKS, UPLINKS)
    assert street.neighbour(TWO) == "FAILED"
    assert street.neighbour(ONE) == "REACHABLE"
    street.switch.set_link("port1", up=True)
    teller.until(lambda links: bool(links["wan2"]["up"]))
    assert street.neighbour(TWO) == "REACHABLE"
    street.switch.set_link("port0", up=False)
    assert street.neighbour(TWO) == "REACHABLE"
    teller.end()


def test_the_check_says_what_is_missing_and_its_commands_mend_it(street: Street) -> None:
    def check() -> list[str]:
        argv = [sys.executable, "-c", CHECK, ONE, TWO, "192.0.2.1"]
        done = street.gateway.run(argv, stdout=subprocess.PIPE, text=True, check=True)
        messages: list[str] = json.loads(done.stdout)
        return messages

    messages = check()
    sharing = [message for message in messages if "both in 198.51.100.0/24" in message]
    assert len(sharing) == 1
    for message in messages:
        for command in message.splitlines()[1:]:
            street.gateway.run(command.split(), check=True)
    assert check() == []
