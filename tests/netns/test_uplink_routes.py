"""Packets leave by the uplink their source address belongs to, whatever happens to the links."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from teller import Teller

from sipnemo.lab.namespace import Namespace, Sandbox, available

pytestmark = pytest.mark.skipif(bool(available()), reason=available())

ONE, TWO = "198.51.100.7", "203.0.113.7"
ONE6 = "2001:db8:1::7"
FAR, FAR6 = "192.0.2.1", "2001:db8:ff::1"
CHECK = """
import json, sys
from sipnemo.shell.check_routes import check_routes
from sipnemo.shell.uplink_routes import UplinkPath
print(json.dumps(check_routes([UplinkPath(*path) for path in json.loads(sys.argv[1])], sys.argv[2])))
"""

SERVER = """
import asyncio
from sipnemo.roles.node import Notice
from sipnemo.shell.server import ShellSettings, serve

class Node:
    deadline = None

    def handle(self, input, now):
        if type(input).__name__ != "Tick":
            return []
        return [Notice("home", {"addresses": ["2001:db8:ff::1", "192.0.2.1"]})]

uplinks = ("wwan0", "sat0")
asyncio.run(serve(lambda environment: Node(), ShellSettings(interfaces=uplinks, uplinks=uplinks)))
"""


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A host with two uplinks; the first has the better default route."""
    with Sandbox() as sandbox:
        here, there = sandbox.host("here"), sandbox.host("there")
        sandbox.cable(here, "wwan0", there, "far0")
        sandbox.cable(here, "sat0", there, "far1")
        here.add_address("wwan0", f"{ONE}/24")
        here.add_address("sat0", f"{TWO}/24")
        here.run(f"ip address add {ONE6}/64 dev wwan0 nodad".split(), check=True)
        here.add_route(dst="default", gateway="198.51.100.1", device="wwan0", metric=100)
        here.add_route(dst="default", gateway="203.0.113.1", device="sat0", metric=200)
        yield here


def leaves_by(host: Namespace, source: str, destination: str = FAR) -> str:
    """The interface and next hop the kernel chooses; empty when there is no way out."""
    asked = host.run(
        ["ip", "-json", "route", "get", destination, "from", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if asked.returncode != 0:
        return ""
    (route,) = json.loads(asked.stdout)
    return f"{route['dev']} {route.get('gateway', '')}".strip()


def rules(host: Namespace) -> list[Any]:
    found = []
    for family in ("-4", "-6"):
        shown = host.run(["ip", family, "-json", "rule"], stdout=subprocess.PIPE, check=True).stdout
        found += [rule for rule in json.loads(shown) if rule["priority"] == 7060]
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_source_leaves_by_its_own_uplink(host: Namespace) -> None:
    assert leaves_by(host, TWO) == "wwan0 198.51.100.1"
    teller = Teller(host, "wwan0,sat0", "wwan0,sat0", {"wwan0": ["2001:db8:1::1"]})
    assert leaves_by(host, ONE) == "wwan0 198.51.100.1"
    assert leaves_by(host, TWO) == "sat0 203.0.113.1"
    assert leaves_by(host, ONE6, FAR6) == "wwan0 2001:db8:1::1"
    assert leaves_by(host, TWO, "203.0.113.9") == "sat0"
    teller.end()
    assert leaves_by(host, TWO) == "wwan0 198.51.100.1"
    assert rules(host) == []


def test_an_uplink_may_be_named_by_its_address(host: Namespace) -> None:
    teller = Teller(host, "", TWO)
    assert [rule["src"] for rule in rules(host)] == [TWO]
    assert leaves_by(host, TWO) == "sat0 203.0.113.1"
    teller.end()


@pytest.mark.req("RO-10")
def test_a_dead_uplinks_packets_never_leave_by_another(host: Namespace) -> None:
    teller = Teller(host, "wwan0,sat0", "wwan0,sat0")
    host.set_link("sat0", up=False)
    teller.until(lambda links: not links["sat0"]["up"])
    assert leaves_by(host, TWO) == ""
    assert leaves_by(host, ONE) == "wwan0 198.51.100.1"
    host.set_link("sat0", up=True)
    host.add_route(dst="default", gateway="203.0.113.2", device="sat0", metric=200)  # as a DHCP client would
    until(lambda: leaves_by(host, TWO) == "sat0 203.0.113.2")
    teller.end()


def test_a_new_gateway_is_followed(host: Namespace) -> None:
    teller = Teller(host, "wwan0,sat0", "wwan0,sat0")
    host.run(["ip", "route", "replace", "default", "via", "203.0.113.99", "dev", "sat0", "metric", "200"], check=True)
    until(lambda: leaves_by(host, TWO) == "sat0 203.0.113.99")
    teller.end()


def test_a_new_address_gets_its_rule_and_the_old_one_loses_it(host: Namespace) -> None:
    teller = Teller(host, "wwan0,sat0", "wwan0,sat0", {"sat0": ["203.0.113.1"]})
    host.remove_address("sat0", f"{TWO}/24")
    teller.until(lambda links: links["sat0"]["addresses"] == [])
    assert TWO not in [rule["src"] for rule in rules(host)]
    host.add_address("sat0", "203.0.113.8/24")
    teller.until(lambda links: links["sat0"]["addresses"] == ["203.0.113.8"])
    assert leaves_by(host, "203.0.113.8") == "sat0 203.0.113.1"
    teller.end()


def test_ipv6_addresses_survive_a_link_that_goes_down(host: Namespace) -> None:
    teller = Teller(host, "wwan0,sat0", "wwan0,sat0", {"wwan0": ["2001:db8:1::1"]})
    host.set_link("wwan0", up=False)
    link = teller.until(lambda links: not links["wwan0"]["up"])
    assert link["addresses"] == [ONE, ONE6]
    host.set_link("wwan0", up=True)
    teller.until(lambda links: bool(links["wwan0"]["up"]) and ONE6 in links["wwan0"]["addresses"])
    until(lambda: leaves_by(host, ONE6, FAR6) == "wwan0 2001:db8:1::1")
    teller.end()


def test_what_a_killed_process_left_is_taken_over(host: Namespace) -> None:
    first = Teller(host, "wwan0,sat0", "wwan0,sat0")
    first.process.kill()
    first.process.wait()
    for pipe in (first.process.stdin, first.process.stderr):
        assert pipe is not None
        pipe.close()
    assert len(rules(host)) == 3
    second = Teller(host, "wwan0,sat0", "sat0")
    assert [rule["src"] for rule in rules(host)] == [TWO]
    second.end()
    assert rules(host) == []


def test_a_missing_gateway_is_said(host: Namespace) -> None:
    host.remove_route(dst="default", gateway="203.0.113.1", device="sat0", metric=200)
    teller = Teller(host, "sat0", "sat0")
    assert leaves_by(host, TWO) == ""
    errors = teller.end()
    assert "No gateway is known for sat0 (203.0.113.7)" in errors


def test_the_check_says_what_is_missing_and_its_commands_mend_it(host: Namespace) -> None:
    paths = json.dumps([["wwan0", ONE], ["sat0", TWO], ["gone0", "10.9.9.9"]])

    def check() -> list[str]:
        done = host.run([sys.executable, "-c", CHECK, paths, FAR], stdout=subprocess.PIPE, text=True, check=True)
        messages: list[str] = json.loads(done.stdout)
        return messages

    (message,) = check()
    first, *commands = message.splitlines()
    assert first.startswith(f"Path sat0 ({TWO}): packets to {FAR} leave by wwan0.")
    for command in commands:
        host.run(command.split(), check=True)
    assert check() == []
    assert leaves_by(host, TWO) == "sat0 203.0.113.1"
    host.run(["ip", "route", "flush", "table", "main"], check=True)
    host.run(["ip", "route", "flush", "table", "7061"], check=True)
    assert all("have no way out" in message for message in check())


def test_a_server_checks_the_routes_to_where_the_home_server_was_found(host: Namespace) -> None:
    """A home server with a name is found by DNS, long after the configuration was read."""
    server = host.popen([sys.executable, "-c", SERVER], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        warning = next(line for line in server.stderr if "Path sat0" in line)
        assert f"({TWO}): packets to {FAR} leave by wwan0." in warning
    finally:
        server.terminate()
        server.communicate(timeout=10)
    assert server.returncode == 0
