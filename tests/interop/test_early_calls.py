"""An uplink dies before a call of real phones is answered: it comes about all the same, and rings once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipnemo.lab.topology import How

from .calls import Party, hear, leaves_by, phones, start_servers
from .gateway import UPLINKS, GatewayWorld
from .hosts import wait_until
from .pjsip import Pjsip

pytestmark = pytest.mark.programs("baresip", "kamailio", "kamailio-tls", "openssl")

BOTH_WAYS = pytest.mark.parametrize(
    ("caller", "called"),
    [pytest.param("dave", "bob", id="in", marks=pytest.mark.long), pytest.param("alice", "carol", id="out")],
)
CUTS = pytest.mark.parametrize("how", ["carrier", pytest.param("silent", marks=pytest.mark.long)])


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[GatewayWorld]:
    with GatewayWorld(directory, {}) as world:
        start_servers(world)
        yield world


def rings(party: Party) -> int:
    """How many calls this phone has said that it rings for: each has a tag of its own."""
    said = [packet.text for packet in party.tap.sip if packet.direction == "out" and packet.text[8:10] == "18"]
    return len({match[1] for text in said if (match := re.search(r"^To:.*;tag=([^;\s]+)", text, re.M))})


def comes_about(calling: Party, rung: Party) -> None:
    """Both have the call, hear each other, and hang up."""
    for party in (calling, rung):
        party.phone.wait_for("CALL_ESTABLISHED", timeout=12)
    hear(calling, rung)
    calling.phone.hang_up()
    for party in (calling, rung):
        party.phone.wait_for("CALL_CLOSED")


@pytest.mark.req("R3", "R2")
@CUTS
@BOTH_WAYS
def test_an_invite_that_the_uplink_takes_along_arrives_by_the_other(
    world: GatewayWorld, caller: str, called: str, how: How
) -> None:
    with world.calm(), phones(world) as people:
        calling, rung = people[caller], people[called]
        world.cut("uplink1", how)
        calling.phone.dial(rung.phone.uri)
        comes_about(calling, rung)
        assert rings(rung) == 1


@pytest.mark.req("R3", "R2")
@CUTS
@BOTH_WAYS
def test_an_uplink_dies_while_the_call_is_being_set_up(world: GatewayWorld, caller: str, called: str, how: How) -> None:
    with world.calm(), phones(world) as people:
        calling, rung = people[caller], people[called]
        calling.phone.dial(rung.phone.uri)
        world.cut("uplink1", how)
        comes_about(calling, rung)
        # Outwards, of a server that has said no more than 100 nobody can ask whether the phone rings.
        assert rings(rung) <= (1 if caller == "dave" else 2)


@pytest.mark.req("R3")
@CUTS
@BOTH_WAYS
def test_early_media_leave_by_the_other_uplink_and_the_answer_brings_the_rest(
    world: GatewayWorld, caller: str, called: str, how: How
) -> None:
    with world.calm(), phones(world, answer="early") as people:
        calling, rung = people[caller], people[called]
        calling.phone.dial(rung.phone.uri)
        calling.phone.wait_for("CALL_PROGRESS")
        wait_until(lambda: len(rung.tap.rtp("in")) > 10, 5, "early media at the phone that rings")
        world.cut("uplink1", how)
        if (
            caller == "alice"
        ):  # what comes from outside follows an UPDATE, which this phone does not take, or the answer
            goes_by = UPLINKS["uplink2"]
            wait_until(lambda: rung.tap.rtp("in")[-1].source[0] == goes_by, 5, "early media by the other uplink")
        rung.phone.answer()
        comes_about(calling, rung)
        assert rings(rung) == 1


@pytest.mark.req("R3", "R2")
@CUTS
@BOTH_WAYS
def test_a_caller_gives_up_at_the_moment_the_uplink_dies(
    world: GatewayWorld, caller: str, called: str, how: How
) -> None:
    with world.calm(), phones(world, answer="manual") as people:
        calling, rung = people[caller], people[called]
        calling.phone.dial(rung.phone.uri)
        calling.phone.wait_for("CALL_RINGING")
        world.cut("uplink1", how)
        calling.phone.hang_up()
        for party in (calling, rung):
            party.phone.wait_for("CALL_CLOSED", timeout=12)


@pytest.mark.programs("pjsip")
@pytest.mark.req("R3")
@CUTS
@BOTH_WAYS
def test_reliable_early_media_follow_to_the_other_uplink_before_the_answer(
    world: GatewayWorld, caller: str, called: str, how: How
) -> None:
    """With PRACK, offer and answer are complete while it rings: an UPDATE tells the far end (RFC 3311)."""
    options = ";100rel=yes"
    with world.calm(), phones(world, answer="manual", options=options, inside="pjsip", outside="pjsip") as people:
        calling, rung = people[caller], people[called]
        outside = calling if caller == "dave" else rung
        calling.phone.dial(rung.phone.uri)
        calling.phone.wait_for("CALL_RINGING")
        assert isinstance(rung.phone, Pjsip)
        rung.phone.answer(183)
        hear(calling, rung)
        world.cut("uplink1", how)
        leaves_by("uplink2", outside)
        hear(calling, rung)
        rung.phone.answer()
        comes_about(calling, rung)
