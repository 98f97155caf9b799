"""Real phones through the gateway: an uplink is cut in each of three ways during two calls, and both calls go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from sipnemo.lab.topology import How

from .baresip import Baresip
from .gateway import ALL, INSIDE, GatewayWorld
from .programs import Kamailio, Mode, Transport
from .tap import Tap

pytestmark = pytest.mark.programs("baresip", "kamailio", "kamailio-tls", "openssl")

CUTS: tuple[How, ...] = ("carrier", "address", "silent")
SERVERS: dict[Mode, str] = {"proxy": "server", "redirect": "server2"}
HOSTS = {"alice": "mn1", "bob": "mn2", "carol": "cn1", "dave": "cn2"}
"Who sits where: alice and bob behind the gateway, carol and dave outside."
USERS = {name: f"{name}'s secret" for name in HOSTS}


@pytest.fixture(scope="module")
def running(directory: Path) -> Iterator[GatewayWorld]:
    with GatewayWorld(directory, {}) as world:
        for mode, name in SERVERS.items():
            Kamailio(world.hosts[name], mode, USERS, ALL, world.certificates).start()
        yield world


@pytest.fixture
def gateway(running: GatewayWorld) -> Iterator[GatewayWorld]:
    """The shared world, calm before each test; the gateway's own words when the test fails."""
    running.calm()
    try:
        yield running
    except AssertionError as error:
        raise AssertionError(f"{error}\n{running.say()}") from error


@dataclass
class Party:
    """One phone, and what its interface carries."""

    phone: Baresip
    tap: Tap


@pytest.fixture
def parties(gateway: GatewayWorld, transport: Transport, mode: Mode) -> Iterator[dict[str, Party]]:
    """Four registered phones."""
    domain = gateway.hosts[SERVERS[mode]].address
    secure = gateway.certificates if transport == "tls" else None
    with ExitStack() as stack:
        made = {}
        for user, place in HOSTS.items():
            host = gateway.hosts[place]
            tap = stack.enter_context(Tap(host))
            outbound = f"sip:{INSIDE}" if place.startswith("mn") else ""
            phone = Baresip(host, user, USERS[user], domain, transport, outbound, certificates=secure)
            stack.callback(phone.stop)
            phone.start(register=False)
            made[user] = Party(phone, tap)
        for party in made.values():
            party.phone.wait_until_registered()
        yield made


def connect(caller: Party, called: Party, number: int = 1) -> None:
    """A call, and RTP both ways at both phones; `number` counts the calls of each of the two."""
    caller.phone.dial(called.phone.uri)
    for party in (caller, called):
        party.phone.wait_for("CALL_ESTABLISHED", number=number)
    hear(caller, called)


def hear(*parties: Party) -> None:
    """RTP goes both ways at each phone, from now on."""
    for party in parties:
        party.tap.wait_for_rtp()


def hang_up(closer: Party, other: Party, number: int = 1) -> None:
    """One side ends the call and the other learns it."""
    closer.phone.hang_up()
    for party in (closer, other):
        party.phone.wait_for("CALL_CLOSED", number=number)


@pytest.mark.req("MH-3", "MH-8", "MH-10", "MH-11", "MH-12", "RO-4", "RO-7", "RO-8", "RO-9", "RO-10")
@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("mode", SERVERS)
@pytest.mark.parametrize("transport", ALL)
def test_calls_outlive_their_uplink(
    gateway: GatewayWorld,
    parties: dict[str, Party],
    how: How,
) -> None:
    alice, bob, carol, dave = (parties[user] for user in HOSTS)
    connect(alice, carol)
    connect(dave, bob)

    gateway.cut("uplink1", how)
    hear(alice, bob, carol, dave)
    assert gateway.paths_on() == {2}

    hang_up(alice, carol)
    hang_up(dave, bob)
    connect(carol, alice, number=2)
    connect(bob, dave, number=2)
    hang_up(alice, carol, number=2)
    hang_up(dave, bob, number=2)
