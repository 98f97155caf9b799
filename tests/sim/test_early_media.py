"""What else a call meets before its answer while its path dies: early media, forks, no path at all, second thoughts."""

from __future__ import annotations

import pytest

from sim.fleet import Fleet
from sim.test_early_calls import WAYS, comes_about, dial, doom, every_way, rings, told
from sipnemo.roles.phone.settings import MANUAL, Account

PAUSES = (0.0, 0.05, 0.4, 3.0)


def ringing(way: str, uplinks: int = 2, **phone: object) -> tuple[Fleet, str]:
    fleet = Fleet(inside=1, outside=1, uplinks=uplinks, phone={"answer_after": MANUAL, **phone})
    call_id = dial(fleet, way)
    fleet.world.run(1.0)
    assert fleet.phones[WAYS[way][0]].notices("ringing")
    return fleet, call_id


def answer(fleet: Fleet, way: str) -> None:
    fleet.phones[WAYS[way][1]].command("answer")


@pytest.mark.req("R3")
@every_way
@pytest.mark.parametrize("kill", ["carrier", "silent"])
def test_early_media_go_on_over_the_new_path_before_the_answer(way: str, kill: str) -> None:
    fleet, call_id = ringing(way, reliable=True)
    assert fleet.talking(call_id, *WAYS[way])
    fleet.cut(0) if kill == "carrier" else fleet.silence(0)
    fleet.world.run(1.5)
    assert fleet.talking(call_id, *WAYS[way]), told(fleet, call_id)
    moves = sum(len(wave.records) for wave in fleet.nms_node.handover.waves)
    answer(fleet, way)
    comes_about(fleet, way, call_id)
    assert sum(len(wave.records) for wave in fleet.nms_node.handover.waves) == moves, "nobody needs a re-INVITE"
    assert rings(fleet, way) == 1


@pytest.mark.req("R3")
@every_way
def test_early_media_follow_when_the_second_path_dies_too(way: str) -> None:
    fleet, call_id = ringing(way, uplinks=3, reliable=True)
    fleet.cut(0)
    fleet.world.run(0.04)  # the UPDATE is under way
    fleet.cut(1)
    fleet.world.run(5.0)
    assert fleet.talking(call_id, *WAYS[way]), told(fleet, call_id)
    answer(fleet, way)
    comes_about(fleet, way, call_id)
    assert rings(fleet, way) == 1


@pytest.mark.req("R3")
@every_way
@pytest.mark.parametrize("pause", PAUSES)
def test_the_path_that_rescued_a_call_may_die_as_well(way: str, pause: float) -> None:
    fleet, call_id = ringing(way, uplinks=3)
    fleet.cut(0)
    fleet.world.run(pause)
    fleet.silence(1)
    answer(fleet, way)
    comes_about(fleet, way, call_id, 10.0)
    assert rings(fleet, way) == 1


@pytest.mark.req("R3")
@every_way
@pytest.mark.parametrize("answered", ["before", "meanwhile", "after"])
def test_a_ringing_call_waits_for_a_path_to_come_back(way: str, answered: str) -> None:
    fleet, call_id = ringing(way)
    if answered == "before":
        answer(fleet, way)
        fleet.world.run(0.01)  # its 200 is lost
    fleet.cut(0)
    fleet.cut(1)
    fleet.world.run(3.0)
    if answered == "meanwhile":
        answer(fleet, way)
    fleet.world.run(3.0)
    fleet.mend(1)
    if answered == "after":
        fleet.world.run(7.0)
        answer(fleet, way)
    comes_about(fleet, way, call_id, 20.0)
    assert rings(fleet, way) == 1


@pytest.mark.req("R3", "R18")
@every_way
def test_a_ringing_call_ends_at_the_phones_when_no_path_comes_back(way: str) -> None:
    fleet, call_id = ringing(way)
    inside = next(name for name in WAYS[way] if name.startswith("in"))
    fleet.cut(0)
    fleet.cut(1)
    assert fleet.world.run_until(lambda: fleet.ended(inside, call_id) is not None, 35.0), told(fleet, call_id)
    fleet.mend(0)
    fleet.hang_up_everything()
    assert fleet.leaks(260.0) == []


@pytest.mark.req("R3")
@every_way
@pytest.mark.parametrize("kill", ["carrier", "silent"])
@pytest.mark.parametrize("message", ["INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK"])
def test_a_late_offer_comes_about(way: str, kill: str, message: str) -> None:
    fleet = Fleet(inside=1, outside=1, phone={"answer_after": 0.3, "late_offer": True})
    doom(fleet, message, kill)
    comes_about(fleet, way, dial(fleet, way), 15.0)


@pytest.mark.req("R3")
@pytest.mark.parametrize("kill", ["carrier", "silent"])
@pytest.mark.parametrize("reliable", [False, True])
@pytest.mark.parametrize("first", [True, False])
def test_one_of_two_phones_that_ring_is_answered_after_the_path_died(kill: str, reliable: bool, first: bool) -> None:
    fleet = Fleet(inside=1, outside=1, phone={"answer_after": MANUAL, "reliable": reliable})
    account = (Account(name="out1", domain="home.example", password="pw-out1"),)
    fleet.add_phone("desk", "192.0.2.150", "", accounts=account, answer_after=MANUAL, reliable=reliable)
    fleet.world.run(2.0)
    call_id = dial(fleet, "out")
    fleet.world.run(1.0)
    fleet.cut(0) if kill == "carrier" else fleet.silence(0)
    fleet.world.run(2.0)
    taker, other = ("out1", "desk") if first else ("desk", "out1")
    fleet.phones[taker].command("answer")
    assert fleet.world.run_until(lambda: fleet.up("in1", call_id) and fleet.up(taker, call_id), 8.0)
    fleet.world.run(3.0)
    assert fleet.ended(other, call_id) is not None
    assert [len(fleet.phones[name].notices("incoming")) for name in (taker, other)] == [1, 1]
    fleet.hang_up("in1")
    assert fleet.leaks() == []


@pytest.mark.req("R3", "R2")
@every_way
@pytest.mark.parametrize("kill", ["carrier", "silent"])
@pytest.mark.parametrize("lead", [-0.06, -0.03, -0.01, 0.0, 0.01, 0.03, 0.06])
def test_an_answer_that_crosses_the_callers_goodbye_leaves_no_call(way: str, kill: str, lead: float) -> None:
    """CANCEL and 200 meet while the path dies (RFC 5407 §3.1.2): both ends are free in the end."""
    fleet, call_id = ringing(way)
    caller, callee = WAYS[way]
    now = fleet.world.now
    fleet.world.clock.at(now + 0.1, answer, fleet, way)
    fleet.world.clock.at(now + 0.1 + lead, fleet.hang_up, caller, call_id)
    fleet.world.clock.at(now + 0.105, fleet.cut if kill == "carrier" else fleet.silence, 0)

    def over() -> bool:
        return fleet.ended(caller, call_id) is not None and fleet.ended(callee, call_id) is not None

    assert fleet.world.run_until(over, 12.0), told(fleet, call_id)
    assert fleet.leaks() == []
