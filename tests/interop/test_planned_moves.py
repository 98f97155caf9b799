"""Real phones, packet by packet: a drain loses none, a move leaves nothing behind on the old uplink (R10, RO-10)."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .calls import HOSTS, Party, connect, hang_up, hear, leaves_by, phones, start_servers
from .gateway import ALL, UPLINKS, GatewayWorld
from .hosts import wait_until
from .programs import Transport
from .tap import RtpPacket, Tap
from .test_gateway_stories import command

pytestmark = pytest.mark.programs("baresip", "kamailio", "kamailio-tls", "openssl")

SETTLE = 1.0
ROUTER = """
table inet router {
    chain forward { type filter hook forward priority 0; ct state invalid drop; }
    chain input { type filter hook input priority 0; ct state invalid drop; }
    chain nat { type nat hook postrouting priority 100; oifname { "wan1", "wan2" } masquerade; }
}
"""
"What many a gateway has: connections are tracked, and what leaves by an uplink gets its address."

STRANGE = 0x5EED0000


class Kind(NamedTuple):
    plane: str
    duplicate: bool


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(Kind("auto", False), id="kernel"),
        pytest.param(Kind("userspace", True), id="userspace, doubled", marks=pytest.mark.long),
        pytest.param(Kind("auto", True), id="kernel, doubled"),
        pytest.param(Kind("userspace", False), id="userspace", marks=pytest.mark.long),
    ],
)
def kind(request: pytest.FixtureRequest) -> Kind:
    chosen: Kind = request.param
    return chosen


@pytest.fixture(scope="module")
def world(directory: Path, kind: Kind) -> Iterator[GatewayWorld]:
    tables: dict[str, dict[str, Any]] = {
        "[media]": {"plane": kind.plane},
        "[move]": {"duplicate": kind.duplicate, "settle_after": SETTLE},
    }
    with GatewayWorld(directory / f"{kind.plane}{kind.duplicate}", tables) as world:
        nms = world.hosts["nms"]
        rules = nms.directory / "router.nft"
        rules.write_text(ROUTER)
        nms.run("nft", "-f", rules)
        start_servers(world)
        yield world


def identity(packet: RtpPacket) -> tuple[int, int]:
    return packet.ssrc, packet.sequence


def settled(world: GatewayWorld) -> bool:
    return not any(int(path["settling"]) for path in world._rows("paths"))


def strange_packet(world: GatewayWorld, from_: str, to: tuple[str, int], number: int) -> None:
    """An RTP packet of nobody's stream, to an address of the gateway."""
    with world.hosts[from_].socket("udp", world.hosts[from_].address, "0") as sock:
        sock.sendto(struct.pack("!BBHII", 0x80, 0, number, 0, STRANGE + number), to)


def strange_at(party: Party) -> set[int]:
    """Which of them have come through to a phone."""
    return {packet.sequence for packet in party.tap.rtp("in") if packet.ssrc & 0xFFFF0000 == STRANGE}


def own_port(outside: Party, line: str) -> int:
    """The gateway's port for a far end's call."""
    return next(p.destination[1] for p in reversed(outside.tap.rtp("out")) if p.destination[0] == UPLINKS[line])


@pytest.mark.req("RO-10", "R7", "R10", "R15")
def test_a_drain_loses_no_packet_and_leaves_nothing_behind(world: GatewayWorld, kind: Kind) -> None:
    with world.calm(), phones(world) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        with Tap(world.hosts["nms"], "wan1") as old, Tap(world.hosts["nms"], "wan2") as new:
            connect(alice, carol)
            connect(dave, bob)
            leaves_by("uplink1", carol, dave)
            before = len(world.moves())
            command(world, "path", "1", "off")
            try:
                leaves_by("uplink2", carol, dave)
                wait_until(lambda: settled(world), 15, "the old path to be let go")
                last = max(old.last("in"), old.last("out"))
                hear(alice, bob, carol, dave)
                assert max(old.last("in"), old.last("out")) == last, "nothing passes the old uplink any more"
            finally:
                command(world, "path", "1", "auto")
            (wave,) = world.moves()[before:]
            assert (wave["planned"], wave["ended"], wave["invites"]) == (True, {"verified": 2}, 2)
            assert {(row["media_up"], row["media_down"]) for row in wave["each"]} == {("seen", "seen")}
            wait_until(lambda: world.paths_on() == {1, 2}, 15, "both paths to be ON again")
            hear(alice, bob, carol, dave)
            assert max(old.last("in"), old.last("out")) == last, "a call stays where it is (R15)"
            both = {identity(p) for p in old.rtp("out")} & {identity(p) for p in new.rtp("out")}
            assert bool(both) == kind.duplicate
        hang_up(alice, carol)
        hang_up(dave, bob)
        assert [person.tap.lost("in") for person in (alice, bob, carol, dave)] == [0, 0, 0, 0]


@pytest.mark.req("R10")
def test_after_a_cut_no_state_of_the_old_uplink_is_left(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        with Tap(world.hosts["nms"], "wan1") as old:
            connect(alice, carol)
            connect(dave, bob)
            leaves_by("uplink1", carol, dave)
            port = own_port(carol, "uplink1")
            world.cut("uplink1", "silent")
            leaves_by("uplink2", carol, dave)
            assert own_port(carol, "uplink2") == port
            wait_until(lambda: settled(world), 15, "the old path to be let go")
            last = old.last("out")
            hear(alice, bob, carol, dave)
            assert old.last("out") == last, "nothing leaves by the dead uplink"
            world.mend()  # OFF for hold-down, then ON: open again for the next move
        with Tap(world.hosts["nms"], "wan1") as old:
            hear(alice, bob, carol, dave)
            assert not old.rtp("out")
        hang_up(alice, carol)
        hang_up(dave, bob)


@pytest.mark.req("R10")
def test_a_path_that_was_left_forwards_nothing_and_a_freed_port_neither(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        alice, carol = people["alice"], people["carol"]
        connect(alice, carol)
        leaves_by("uplink1", carol)
        port = own_port(carol, "uplink1")
        strange_packet(world, "cn1", (UPLINKS["uplink1"], port), 1)
        wait_until(lambda: 1 in strange_at(alice), 5, "the path in use to be open")
        command(world, "path", "1", "off")
        try:
            leaves_by("uplink2", carol)
            wait_until(lambda: settled(world), 15, "the old path to be let go")
            strange_packet(world, "cn1", (UPLINKS["uplink1"], port), 2)
            wait_until(lambda: _passed(world, alice, port), 5, "packets by the new path")
            hang_up(carol, alice)
            wait_until(lambda: not world.sessions(), 5, "the call to be over")
            strange_packet(world, "cn1", (UPLINKS["uplink2"], port), 3)
            status = world.admin.get("/api/status")
            assert isinstance(status, dict)
            assert status["media_ports_used"] == 0
            assert status["media_ports_resting"] >= 1
            connect(alice, carol, number=2)  # packets pass again, of a call with another port
            assert own_port(carol, "uplink2") != port
            hang_up(alice, carol, number=2)
        finally:
            command(world, "path", "1", "auto")
        assert strange_at(alice) == {1, 4}


def _passed(world: GatewayWorld, party: Party, port: int) -> bool:
    strange_packet(world, "cn1", (UPLINKS["uplink2"], port), 4)
    return 4 in strange_at(party)


@pytest.mark.req("R1", "RO-8", "RO-10")
@pytest.mark.parametrize("kind", [Kind("auto", False)], indirect=True, ids=["kernel"])
@pytest.mark.parametrize("transport", ALL)
@pytest.mark.parametrize("how", ["drain", pytest.param("carrier", marks=pytest.mark.long)])
def test_every_call_gets_one_re_invite_with_new_via_contact_and_addresses(
    world: GatewayWorld, transport: Transport, how: str
) -> None:
    with world.calm(), phones(world, transport) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        leaves_by("uplink1", carol, dave)
        before, began = len(world.moves()), time.time()
        if how == "drain":
            command(world, "path", "1", "off")
        else:
            world.cut("uplink1", "carrier")
        try:
            leaves_by("uplink2", carol, dave)
            wait_until(lambda: all(wave["duration_ms"] for wave in world.moves()[before:]), 15, "the move to end")
            hear(alice, bob, carol, dave)
        finally:
            command(world, "path", "1", "auto")
        waves = [wave for wave in world.moves()[before:] if wave["calls"]]
        assert [(wave["calls"], wave["invites"], wave["ended"]) for wave in waves] == [(2, 2, {"verified": 2})]
        new = UPLINKS["uplink2"]
        for person in (carol, dave) if transport != "tls" else ():
            came = [p.text for p in person.tap.sip if p.direction == "in" and p.at > began]
            invites = [text for text in came if text.startswith("INVITE ")]
            assert len({_line(text, "CSeq") for text in invites}) == 1
            assert any(new in line for line in invites[0].split("\r\n") if line.lower().startswith("via:"))
            assert new in _line(invites[0], "Contact")
            if "\r\n\r\nv=" in invites[0]:  # not cut into two segments
                assert f"c=IN IP4 {new}" in invites[0]
            assert UPLINKS["uplink1"] not in _line(invites[0], "Contact")
        hang_up(alice, carol)
        hang_up(dave, bob)


def _line(text: str, name: str) -> str:
    return next((line for line in text.split("\r\n") if line.lower().startswith(f"{name.lower()}:")), "")
