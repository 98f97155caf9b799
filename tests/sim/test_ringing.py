"""A path dies while a call rings (R3): it rings on, once, and is answered all the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sim.fleet import Fleet
from sipnemo.roles.phone.settings import MANUAL

CUTS: dict[str, Callable[[Fleet], None]] = {
    "carrier": lambda fleet: fleet.cut(0),
    "silent": lambda fleet: fleet.silence(0),
    "renumbered": lambda fleet: fleet.readdress(0, "198.51.100.99"),
}


def ringing(caller: str, callee: str, reliable: bool = False) -> tuple[Fleet, str]:
    fleet = Fleet(inside=1, outside=1, phone={"answer_after": MANUAL, "reliable": reliable})
    call_id = fleet.dial(caller, callee)
    fleet.world.run(1.0)
    assert fleet.phones[caller].notices("ringing")
    return fleet, call_id


@pytest.mark.req("R3")
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("caller", "callee"), [("in1", "out1"), ("out1", "in1")], ids=["out", "in"])
@pytest.mark.parametrize("pause", [0.0, 0.03, 1.0, 7.3])
def test_a_call_is_answered_although_its_path_died_while_it_rang(
    cut: Callable[[Fleet], None], caller: str, callee: str, pause: float
) -> None:
    fleet, call_id = ringing(caller, callee)
    cut(fleet)
    fleet.world.run(pause)
    fleet.phones[callee].command("answer")
    up = fleet.world.run_until(lambda: fleet.up(caller, call_id) and fleet.up(callee, call_id), 8.0)
    assert up, fleet.story(call_id)
    assert len(fleet.phones[callee].notices("incoming")) == 1, "it rang once"
    assert fleet.talking(call_id, caller, callee)
    fleet.hang_up(callee)
    assert fleet.leaks() == []


@pytest.mark.req("R3")
def test_the_answer_that_was_on_its_way_when_the_path_died_is_found_again() -> None:
    fleet, call_id = ringing("in1", "out1")
    fleet.phones["out1"].command("answer")
    fleet.world.run(0.01)  # the 200 is on the dying path
    fleet.cut(0)
    assert fleet.world.run_until(lambda: fleet.up("in1", call_id), 8.0), fleet.story(call_id)
    assert fleet.talking(call_id, "in1", "out1")
    fleet.hang_up("in1")
    assert fleet.leaks() == []


@pytest.mark.req("R3")
def test_a_reliable_ringing_survives_too() -> None:
    fleet, call_id = ringing("in1", "out1", reliable=True)
    fleet.cut(0)
    fleet.world.run(2.0)
    fleet.phones["out1"].command("answer")
    assert fleet.world.run_until(lambda: fleet.up("in1", call_id), 8.0), fleet.story(call_id)
    fleet.hang_up("out1")
    assert fleet.leaks() == []


@pytest.mark.req("R3")
def test_the_caller_gives_up_after_the_path_died_and_nobody_rings_on() -> None:
    fleet, call_id = ringing("in1", "out1")
    fleet.cut(0)
    fleet.world.run(0.5)
    fleet.hang_up("in1")
    fleet.world.run(3.0)
    assert fleet.ended("in1", call_id) is not None
    assert fleet.ended("out1", call_id) is not None, fleet.story(call_id)
    assert fleet.leaks() == []


@pytest.mark.req("R3")
def test_a_refusal_that_was_lost_with_the_path_ends_the_call_at_the_caller() -> None:
    fleet, call_id = ringing("in1", "out1")
    fleet.cut(0)
    fleet.hang_up("out1")  # declines: its answer goes to the dead path
    fleet.world.run(10.0)
    assert fleet.ended("in1", call_id) is not None, fleet.story(call_id)
    assert fleet.leaks() == []


@pytest.mark.req("R3")
def test_a_call_that_rings_outlives_two_paths_one_after_the_other() -> None:
    fleet, call_id = ringing("in1", "out1")
    fleet.cut(0)
    fleet.world.run(1.0)
    fleet.mend(0)
    fleet.world.run(8.0)
    fleet.cut(1)
    fleet.world.run(1.5)
    fleet.phones["out1"].command("answer")
    assert fleet.world.run_until(lambda: fleet.up("in1", call_id), 8.0), fleet.story(call_id)
    assert fleet.talking(call_id, "in1", "out1")
    fleet.hang_up("in1")
    assert fleet.leaks() == []
