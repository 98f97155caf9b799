"""The home server goes away under real calls, comes back, comes back empty: calls go on, registrations return."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sipnemo.lab.processes import Admin, Server
from sipnemo.lab.topology import How

from .calls import HOSTS, connect, hang_up, hear, leaves_by, phones, start_servers
from .gateway import UPLINKS, GatewayWorld
from .hosts import wait_until

pytestmark = pytest.mark.programs("baresip", "kamailio", "kamailio-tls", "openssl")

CUTS: list[tuple[str, How]] = [
    ("uplink1", "address"),
    ("uplink2", "carrier"),
    ("uplink2", "address"),
    ("uplink1", "silent"),
]


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[GatewayWorld]:
    with GatewayWorld(directory, {}) as world:
        start_servers(world)
        yield world


@pytest.mark.req("R12", "R17", "R2")
def test_live_calls_move_while_the_home_server_is_dead(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        home = kill(world)
        try:
            world.cut("uplink1", "carrier")
            leaves_by("uplink2", carol, dave)
            hear(alice, bob, carol, dave)
        finally:
            start(home)
        wait_until(lambda: {*contacts(world)} == {UPLINKS["uplink2"]}, 40, "the living path to be at home again")
        hang_up(carol, alice)
        hang_up(bob, dave)


@pytest.mark.req("R12")
def test_a_home_server_that_has_forgotten_everything_is_told_again(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        home = kill(world)
        for file in world.hosts["hs"].directory.glob("home.db*"):
            file.unlink()
        start(home)
        wait_until(lambda: {*contacts(world)} == {*UPLINKS.values()}, 40, "both paths to be at home again")
        alice, carol = people["alice"], people["carol"]
        connect(alice, carol)
        hang_up(carol, alice)


@pytest.mark.req("R11", "R12", "R14")
def test_removing_an_old_flow_never_hits_the_new_one(world: GatewayWorld) -> None:
    with world.calm():
        for line, how in CUTS:
            world.cut(line, how)
            wait_until(lambda: len(world.paths_on()) == 1, 10, "the path to be OFF")
            left = ({*UPLINKS.values()} - {UPLINKS[line]}).pop()
            wait_until(lambda left=left: contacts(world) == [left], 10, "home to know of it")  # type: ignore[misc]
            world.mend()
            wait_until(lambda: sorted(contacts(world)) == sorted(UPLINKS.values()), 10, "both to be at home")


@pytest.mark.req("R16")
def test_a_gateway_that_was_killed_knows_its_phones_again(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        alice, carol = people["alice"], people["carol"]
        start(kill(world, "nms"))
        wait_until(lambda: world.paths_on() == {1, 2}, 20, "both paths to be ON")
        connect(carol, alice)
        hang_up(alice, carol)


def kill(world: GatewayWorld, name: str = "hs") -> Server:
    """End a server as a power failure would."""
    server = next(server for server in world.servers if server.name == name)
    server.stop(at_once=True)
    server.process.wait(10)
    return server


def start(server: Server) -> None:
    """And bring it back."""
    server.start_again()
    wait_until(server.ready, 20, f"{server.name} to be ready")


def contacts(world: GatewayWorld) -> list[str]:
    """The gateway's addresses, as the home server has them."""
    answer = Admin(world.hosts["hs"].namespace).get("/api/bindings")
    rows = answer.get("bindings", []) if isinstance(answer, dict) else answer
    return [address for row in rows or [] for address in UPLINKS.values() if address in str(row)]
