"""Calls of PJSIP phones, with each other and with baresip: their uplink dies at the least convenient moments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest

from .calls import Make, connect, hang_up, hear, leaves_by, phones, start_servers
from .gateway import ALL, GatewayWorld
from .hosts import wait_until
from .pjsip import Pjsip
from .programs import Transport

pytestmark = pytest.mark.programs("baresip", "pjsip", "kamailio", "kamailio-tls", "openssl")

PAIRS: list[tuple[Make, Make]] = [("pjsip", "baresip"), ("baresip", "pjsip"), ("pjsip", "pjsip")]
"Phones behind the gateway, and outside."
FEW = dict(zip(ALL, PAIRS, strict=True))
"With these each transport and each pair is played once."

pairs = pytest.mark.parametrize(
    ("transport", "inside", "outside"),
    [
        pytest.param(transport, *pair, marks=() if FEW[transport] == pair else [pytest.mark.long])
        for transport in ALL
        for pair in PAIRS
    ],
)
transports = pytest.mark.parametrize(
    "transport", ["udp", *(pytest.param(name, marks=pytest.mark.long) for name in ("tcp", "tls"))]
)


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[GatewayWorld]:
    with GatewayWorld(directory, {}) as world:
        start_servers(world)
        yield world


@pytest.mark.req("R1", "R6", "MH-12", "RO-10")
@pairs
def test_calls_outlive_their_uplink(world: GatewayWorld, transport: Transport, inside: Make, outside: Make) -> None:
    with world.calm(), phones(world, transport, inside=inside, outside=outside) as people:
        alice, bob, carol, dave = people.values()
        connect(alice, carol)
        connect(dave, bob)
        before = len(world.moves())

        world.cut("uplink1", "carrier")
        leaves_by("uplink2", carol, dave)
        hear(alice, bob, carol, dave)
        wait_until(lambda: ended(world, before, "verified") == 2, 10, "two verified moves")

        hang_up(alice, carol)
        hang_up(dave, bob)


@pytest.mark.req("R3")
@pytest.mark.parametrize("caller", ["alice", pytest.param("carol", marks=pytest.mark.long)])
@pairs
def test_a_ringing_call_outlives_its_uplink(
    world: GatewayWorld, transport: Transport, inside: Make, outside: Make, caller: str
) -> None:
    with world.calm(), phones(world, transport, inside=inside, outside=outside, answer="manual") as people:
        calling, rung = people[caller], people["carol" if caller == "alice" else "alice"]
        calling.phone.dial(rung.phone.uri)
        calling.phone.wait_for("CALL_RINGING")
        world.cut("uplink1", "carrier")
        wait_until(lambda: world.paths_on() == {2}, 10, "the path to be OFF")
        rung.phone.answer()
        for person in (calling, rung):
            person.phone.wait_for("CALL_ESTABLISHED", timeout=8)
        hear(calling, rung)
        assert rung.phone.count("CALL_INCOMING") == 1, "it rang once"
        hang_up(calling, rung)


@pytest.mark.req("R5")
@pytest.mark.parametrize("holder", ["alice", pytest.param("carol", marks=pytest.mark.long)])
@transports
def test_a_call_on_hold_moves_and_is_resumed(world: GatewayWorld, transport: Transport, holder: str) -> None:
    with world.calm(), phones(world, transport, inside="pjsip", outside="pjsip") as people:
        alice, carol = people["alice"], people["carol"]
        connect(alice, carol)
        people[holder].phone.hold()
        wait_until(lambda: people[holder].tap.last("in") < time() - 0.2, 10, "the other side to fall silent")
        before = len(world.moves())
        world.cut("uplink1", "carrier")
        wait_until(lambda: ended(world, before) == 1, 10, "the call to move")
        people[holder].phone.resume()
        leaves_by("uplink2", carol)
        hear(alice, carol)
        hang_up(carol, alice)


@pytest.mark.req("R5")
@pytest.mark.parametrize(
    "asking", ["alice", *(pytest.param(names, marks=pytest.mark.long) for names in ("carol", "alice carol"))]
)
@pytest.mark.parametrize("method", ["INVITE", pytest.param("UPDATE", marks=pytest.mark.long)])
@transports
def test_an_offer_of_the_phones_meets_the_move(
    world: GatewayWorld, transport: Transport, method: str, asking: str
) -> None:
    """Its request is under way, into a black hole, when the gateway finds out."""
    with world.calm(), phones(world, transport, inside="pjsip", outside="pjsip") as people:
        alice, carol = people["alice"], people["carol"]
        connect(alice, carol)
        askers = [people[name].phone for name in asking.split()]
        answers = [phone.count("ANSWERED") for phone in askers]
        world.cut("uplink1", "silent")
        for phone in askers:
            assert isinstance(phone, Pjsip)
            phone.reinvite() if method == "INVITE" else phone.update()
        leaves_by("uplink2", carol)
        hear(alice, carol)
        for phone, count in zip(askers, answers, strict=True):
            wait_until(lambda p=phone, n=count: p.count("ANSWERED") > n, 40, "an answer to the phone's offer")  # type: ignore[misc]
        hear(alice, carol)
        hang_up(alice, carol)


@pytest.mark.req("R8")
@transports
def test_encrypted_media_move_untouched(world: GatewayWorld, transport: Transport) -> None:
    with world.calm(), phones(world, transport, options=";mediaenc=srtp-mand", inside="pjsip") as people:
        alice, carol = people["alice"], people["carol"]
        connect(alice, carol)
        world.cut("uplink1", "carrier")
        leaves_by("uplink2", carol)
        hear(alice, carol)
        hang_up(carol, alice)
        said = carol.phone.log.read_text(errors="replace")
        assert "failed to decrypt RTP " not in said, "every packet was authentic"


def ended(world: GatewayWorld, before: int, how: str = "") -> int:
    """How many moves of calls have ended (like this) since there were so many waves of them."""
    counts = [row["ended"] for row in world.moves()[before:]]
    return sum(count.get(how, 0) if how else sum(count.values()) for count in counts)
