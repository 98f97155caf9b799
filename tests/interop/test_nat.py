"""Calls through real NATs: what is set up, moves, is held, and outlives a NAT that forgets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phone_process import PhoneProcess
from sipnemo.lab.line import Direction

from .hosts import wait_until
from .nat import PORTS_CHANGED, PORTS_KEPT, PRIVATE, PUBLIC, NatWorld

pytestmark = pytest.mark.programs("nft")

FORGETS_AFTER = 20
"Seconds; a call that is on hold would be shut out after them."


@pytest.fixture(scope="module")
def kept(directory: Path) -> Iterator[NatWorld]:
    with NatWorld(directory / "kept", PORTS_KEPT, nms_tables={"[media]": {"plane": "userspace"}}) as world:
        yield world


@pytest.fixture(scope="module")
def changed(directory: Path) -> Iterator[NatWorld]:
    with NatWorld(directory / "changed", PORTS_CHANGED, FORGETS_AFTER) as world:
        yield world


def mend(world: NatWorld, *lines: str) -> None:
    for line in lines:
        world.world.restore(line)
    wait_until(lambda: world.paths_on() == {1, 2}, 15, "both paths to be ON again")
    wait_until(lambda: not world.rows("sessions"), 10, "the calls to be over")


def heard(phone: PhoneProcess, more: int = 50) -> None:
    """Wait until so many more packets have come."""
    phone.wait_for_packets(phone.wait_for_packets(0)["packets"] + more)


def move_after(world: NatWorld, moves: int) -> dict[str, Any]:
    """The first move after so many, when it has ended."""
    return wait_until(lambda: [move for move in world.rows("moves")[moves:] if move["ended"]], 10, "a move to end")[0]


@pytest.mark.req("R6", "R7", "R10", "RO-10")
def test_a_nat_that_keeps_ports_needs_nothing_of_the_far_end(kept: NatWorld) -> None:
    paths = {path["eface_id"]: path for path in kept.rows("paths")}
    assert {n: (paths[n]["nat"], paths[n]["mapped"]) for n in PUBLIC} == {
        n: (True, f"{PUBLIC[n]}:5060") for n in PUBLIC
    }
    with kept.phone("mn", "alice") as alice, kept.phone("cn", "bob") as bob:
        alice.wait_for("registered")
        bob.wait_for("registered")
        bob.command("call", "sip:alice@192.0.2.10")
        bob.wait_for("answered")
        for phone in (alice, bob):
            heard(phone)
        moves = len(kept.rows("moves"))
        kept.world.cut("uplink1", "silent")
        moved = move_after(kept, moves)
        assert (moved["cause"], moved["ended"]) == ("probe", {"verified": 1})
        for phone in (alice, bob):
            heard(phone)
        bob.command("hangup")
        alice.wait_for("ended")
    mend(kept, "uplink1")


@pytest.mark.req("R13", "R7", "MH-3", "RO-10")
@pytest.mark.parametrize("dead", ["up", pytest.param("down", marks=pytest.mark.long)])
def test_a_path_that_is_dead_in_one_direction_is_left_and_the_other_direction_loses_nothing(
    kept: NatWorld, dead: Direction
) -> None:
    with kept.phone("mn", "alice") as alice, kept.phone("cn", "bob") as bob:
        alice.wait_for("registered")
        bob.wait_for("registered")
        alice.command("call", "sip:bob@192.0.2.10")
        alice.wait_for("answered")
        for phone in (alice, bob):
            heard(phone)
        moves = len(kept.rows("moves"))
        kept.world.cut("uplink1", "silent", dead)
        moved = move_after(kept, moves)
        assert (moved["cause"], moved["ended"]) == ("probe", {"verified": 1})
        for phone in (alice, bob):
            heard(phone)
        living = alice if dead == "up" else bob
        assert living.wait_for_packets(0)["lost"] == 0
        bob.command("hangup")
        alice.wait_for("ended")
    mend(kept, "uplink1")


@pytest.mark.req("R6", "R7", "R10", "RO-10")
@pytest.mark.parametrize("inward", [pytest.param(False, id="out"), pytest.param(True, id="in", marks=pytest.mark.long)])
def test_calls_move_between_symmetric_nats(changed: NatWorld, inward: bool) -> None:
    with changed.phone("mn", "alice") as alice, changed.phone("cn", "bob", "--symmetric") as bob:
        alice.wait_for("registered")
        bob.wait_for("registered")
        caller, callee = (bob, "alice") if inward else (alice, "bob")
        caller.command("call", f"sip:{callee}@192.0.2.10")
        caller.wait_for("answered")
        for phone in (alice, bob):
            heard(phone)
        moves = len(changed.rows("moves"))
        changed.world.cut("uplink1", "carrier")
        assert move_after(changed, moves)["ended"] == {"verified": 1}
        for phone in (alice, bob):
            heard(phone)
        alice.command("hangup")
        bob.wait_for("ended")
    mend(changed, "uplink1")


@pytest.mark.req("R6", "R10", "R15")
def test_a_nat_that_forgets_costs_no_call(changed: NatWorld) -> None:
    with changed.phone("mn", "alice") as alice, changed.phone("cn", "bob", "--symmetric") as bob:
        alice.wait_for("registered")
        bob.wait_for("registered")
        alice.command("call", "sip:bob@192.0.2.10")
        alice.wait_for("answered")
        for phone in (alice, bob):
            heard(phone)
        before = len(changed.rows("moves"))
        mapped = changed.rows("paths")[0]["mapped"]
        changed.forget(1)
        wait_until(lambda: changed.rows("paths")[0]["mapped"] != mapped, 5, "the new mapping to be seen")
        moved = move_after(changed, before)
        assert (moved["cause"], moved["ended"], list(moved["to_paths"])) == (
            "nat",
            {"verified": 1},
            [f"1/{PRIVATE[1]}"],
        )
        for phone in (alice, bob):
            heard(phone)
        bob.command("hangup")  # by way of the SIP-HS, over the new flow
        alice.wait_for("ended")
        bob.command("call", "sip:alice@192.0.2.10")
        alice.wait_for("answered", number=2)
        heard(alice)
        alice.command("hangup")
        bob.wait_for("ended", number=2)
    wait_until(lambda: not changed.rows("sessions"), 10, "the calls to be over")


@pytest.mark.long
@pytest.mark.req("R10")
def test_a_held_call_outlives_the_memory_of_the_nat(changed: NatWorld) -> None:
    with changed.phone("mn", "alice") as alice, changed.phone("cn", "bob", "--symmetric") as bob:
        alice.wait_for("registered")
        bob.wait_for("registered")
        alice.command("call", "sip:bob@192.0.2.10")
        alice.wait_for("answered")
        heard(alice)
        bob.command("hold", "all")
        bob.wait_for("held")
        before = bob.wait_for_packets(0)["junk"]
        wait_until(lambda: bob.wait_for_packets(0)["junk"] > before, 40, "a keep-alive from the gateway's media port")
        bob.command("resume", "all")
        for phone in (alice, bob):
            heard(phone)
        bob.command("hangup")
        alice.wait_for("ended")
    wait_until(lambda: not changed.rows("sessions"), 10, "the calls to be over")
