"""Real phones through the gateway: an uplink is cut in each of three ways during two calls, and both calls go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sipnemo.lab.topology import How

from .calls import HOSTS, SERVERS, connect, hang_up, hear, leaves_by, phones, start_servers
from .gateway import ALL, GatewayWorld
from .programs import Mode, Transport

pytestmark = pytest.mark.programs("baresip", "kamailio", "kamailio-tls", "openssl")

CUTS: tuple[How, ...] = ("carrier", "address", "silent")


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[GatewayWorld]:
    with GatewayWorld(directory, {}) as world:
        start_servers(world)
        yield world


@pytest.mark.req("MH-3", "MH-8", "MH-10", "MH-11", "MH-12", "RO-4", "RO-7", "RO-8", "RO-9", "RO-10")
@pytest.mark.parametrize(
    ("transport", "mode", "how"),
    [
        # Every second one: each pair of two of the three is among them.
        pytest.param(transport, mode, how, marks=[pytest.mark.long] if (t + m + h) % 2 else ())
        for t, transport in enumerate(ALL)
        for m, mode in enumerate(SERVERS)
        for h, how in enumerate(CUTS)
    ],
)
def test_calls_outlive_their_uplink(world: GatewayWorld, transport: Transport, mode: Mode, how: How) -> None:
    with world.calm(), phones(world, transport, mode) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        leaves_by("uplink1", carol, dave)

        world.cut("uplink1", how)
        leaves_by("uplink2", carol, dave)
        hear(alice, bob, carol, dave)
        assert world.paths_on() == {2}

        hang_up(alice, carol)
        hang_up(dave, bob)
        connect(carol, alice, number=2)
        connect(bob, dave, number=2)
        hang_up(alice, carol, number=2)
        hang_up(dave, bob, number=2)
        if transport == "tls":
            assert not [*alice.tap.sip, *bob.tap.sip], "nothing in the clear"
