"""No uplink works: calls of real phones wait, are hung up or held meanwhile, and end when it lasts too long (R18)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest

from .calls import HOSTS, connect, hang_up, hear, phones, start_servers
from .gateway import GatewayWorld
from .hosts import wait_until

pytestmark = [
    pytest.mark.programs("baresip", "pjsip", "kamailio", "kamailio-tls", "openssl"),
    pytest.mark.req("R18"),
]
SUSPEND_FOR = 6


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[GatewayWorld]:
    with GatewayWorld(directory, {"[limits]": {"suspend_for": SUSPEND_FOR}}) as world:
        start_servers(world)
        yield world


def cut_everything(world: GatewayWorld) -> None:
    # The idle one first: a re-INVITE sent into a dying link may lie in the kernel, for want of a neighbour's address,
    # and arrive a second late. PJSIP takes it then, although its CSeq is lower than the last (RFC 3261 §12.2.2).
    for line in ("uplink2", "uplink1"):
        world.cut(line, "carrier")
    wait_until(lambda: not world.paths_on(), 10, "no path to be ON")


def test_a_hang_up_in_between_reaches_the_far_end_later(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        cut_everything(world)
        alice.phone.hang_up()
        alice.phone.wait_for("CALL_CLOSED")
        wait_until(lambda: len(world.sessions()) == 1, 5, "the call that was hung up to be gone")
        world.mend()
        carol.phone.wait_for("CALL_CLOSED")
        hear(bob, dave)
        hang_up(bob, dave)


def test_a_hold_in_between_is_done_when_a_path_is_back(world: GatewayWorld) -> None:
    with world.calm(), phones(world, inside="pjsip", outside="pjsip") as people:
        alice, carol = people["alice"], people["carol"]
        connect(alice, carol)
        cut_everything(world)
        alice.phone.hold()
        world.mend()
        wait_until(lambda: alice.tap.last("in") < time() - 0.3, 10, "carol to fall silent")
        alice.phone.resume()
        hear(alice, carol)
        hang_up(carol, alice)


def test_calls_that_wait_too_long_end_on_both_sides(world: GatewayWorld) -> None:
    with world.calm(), phones(world) as people:
        alice, bob, carol, dave = (people[user] for user in HOSTS)
        connect(alice, carol)
        connect(dave, bob)
        cut_everything(world)
        for inside in (alice, bob):
            inside.phone.wait_for("CALL_CLOSED", timeout=SUSPEND_FOR + 10)
        assert not world.sessions()
        world.mend()
        for outside in (carol, dave):
            outside.phone.wait_for("CALL_CLOSED")
