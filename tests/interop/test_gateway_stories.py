"""What else happens to calls of real phones while uplinks come and go."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipnemo.lab.topology import How

from .calls import HOSTS, Party, connect, hang_up, hear, leaves_by, phones, start_servers
from .gateway import UPLINKS, GatewayWorld
from .hosts import wait_until
from .tap import Direction

pytestmark = pytest.mark.programs("baresip", "kamailio", "kamailio-tls", "openssl")

one_plane = pytest.mark.parametrize("world", ["auto"], indirect=True)
both_planes = pytest.mark.parametrize(
    "world", ["auto", pytest.param("userspace", marks=pytest.mark.long)], indirect=True
)


@pytest.fixture(scope="module")
def world(directory: Path, request: pytest.FixtureRequest) -> Iterator[GatewayWorld]:
    """One world per media plane."""
    with GatewayWorld(directory / request.param, {"[media]": {"plane": request.param}}) as world:
        start_servers(world)
        yield world


@pytest.mark.req("MH-12", "RO-10", "R13", "R14")
@both_planes
def test_each_path_in_turn_may_fail(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        for line, survivor in (("uplink1", 2), ("uplink2", 1), ("uplink1", 2)):
            world.cut(line, "silent")
            leaves_by(f"uplink{survivor}", carol, dave)
            hear(alice, bob)
            wait_until(lambda survivor=survivor: world.paths_on() == {survivor}, 10, "the other path to be OFF")  # type: ignore[misc]
            world.mend()
        hang_up(carol, alice)
        hang_up(bob, dave)


@pytest.mark.req("MH-12")
@both_planes
def test_a_drained_path_loses_no_packet(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        command(world, "path", "1", "off")
        try:
            wait_until(lambda: {int(call["eface_id"]) for call in world.sessions()} == {2}, 10, "both calls to move")
            hear(alice, bob, carol, dave)
        finally:
            command(world, "path", "1", "auto")
        hang_up(alice, carol)
        hang_up(dave, bob)
        assert [person.tap.lost("in") for person in (alice, bob, carol, dave)] == [0, 0, 0, 0]


@pytest.mark.req("R8")
@one_plane
def test_encrypted_media_moves_untouched(world: GatewayWorld) -> None:
    with world.calm(), phones(world, "tls", options=";mediaenc=srtp-mand") as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        world.cut("uplink1", "carrier")
        hear(alice, bob, carol, dave)
        hang_up(carol, alice)
        hang_up(bob, dave)
        for person in people.values():
            said = person.phone.log.read_text(errors="replace")
            assert "failed to decrypt RTP " not in said, "every packet was authentic"


@pytest.mark.req("R18", "R2")
@one_plane
def test_calls_wait_for_a_path_to_come_back(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        world.cut("uplink1", "carrier")
        world.cut("uplink2", "carrier")
        wait_until(lambda: not world.paths_on(), 10, "no path to be ON")
        world.mend()
        hear(alice, bob, carol, dave)
        hang_up(alice, carol)
        hang_up(dave, bob)


@pytest.mark.req("R5", "R6")
@pytest.mark.parametrize("how", ["silent", "carrier"])
@one_plane
def test_calls_put_on_hold_and_taken_up_again_while_they_move(world: GatewayWorld, how: How) -> None:
    """The phone inside and the far end, each at the worst moment: just after the uplink has died.

    Told by what they agree upon: what baresip plays back (aubridge) does not come back to life after hold.
    """
    with world.calm(), phones(world) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        world.cut("uplink1", how)
        for holder in (alice, dave):
            holder.phone.hold()
        wait_until(lambda: {int(call["eface_id"]) for call in world.sessions()} == {2}, 10, "both calls to move")
        for holder, other in ((alice, carol), (dave, bob)):
            hold_at_last(holder, other)
            holder.phone.resume()
            wait_until(lambda h=holder, o=other: agreed(h, o, "sendrecv", "sendrecv"), 10, "its end")  # type: ignore[misc]
        for far in (carol, dave):
            assert f"c=IN IP4 {UPLINKS['uplink2']}" in described(far, "in")[-1]
        hang_up(carol, alice)
        hang_up(bob, dave)


def hold_at_last(holder: Party, other: Party) -> None:
    """A far end whose re-INVITE meets ours gets a 491 (RFC 3261 §14.2), and baresip does not try again by itself."""
    try:
        wait_until(lambda: agreed(holder, other, "sendonly", "recvonly"), 4, "hold to be agreed")
    except AssertionError:
        holder.phone.resume()
        holder.phone.hold()
        wait_until(lambda: agreed(holder, other, "sendonly", "recvonly"), 10, "hold to be agreed at the second attempt")


@pytest.mark.req("MH-12", "R3")
@pytest.mark.parametrize(
    ("caller", "called"),
    [
        pytest.param("dave", "bob", id="in"),
        pytest.param("alice", "carol", id="out"),
    ],
)
@one_plane
def test_a_ringing_call_outlives_its_uplink(world: GatewayWorld, caller: str, called: str) -> None:
    with world.calm(), phones(world, answer="manual") as people:
        calling, rung = people[caller], people[called]
        calling.phone.dial(rung.phone.uri)
        calling.phone.wait_for("CALL_RINGING")
        world.cut("uplink1", "carrier")
        wait_until(lambda: world.paths_on() == {2}, 10, "the path to be OFF")
        rung.phone.answer()
        try:
            for person in (calling, rung):
                person.phone.wait_for("CALL_ESTABLISHED", timeout=8)
            hear(calling, rung)
        finally:
            calling.phone.hang_up()
        rung.phone.wait_for("CALL_CLOSED")


def described(party: Party, direction: Direction) -> list[str]:
    """The messages with a session description that a phone has sent or got."""
    return [packet.text for packet in party.tap.sip if packet.direction == direction and "m=audio" in packet.text]


def agreed(one: Party, other: Party, its: str, others: str) -> bool:
    """Whether the last words of both ends, and what reached the other, say so."""
    said = ((one, "out", its), (other, "in", its), (other, "out", others), (one, "in", others))
    return all(f"a={word}\r\n" in described(party, way)[-1] for party, way, word in said)  # type: ignore[arg-type]


def command(world: GatewayWorld, *words: str) -> None:
    """`sipnemo …` on the gateway."""
    world.hosts["nms"].run(sys.executable, "-m", "sipnemo", *words)
