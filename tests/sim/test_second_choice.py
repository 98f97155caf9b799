"""Media go one way only on the new path, or neither: what is found out, and where the call ends up (R7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sim.fleet import UPLINKS, Fleet

ADDRESS = [address for _, address in UPLINKS]


def calling(**options: Any) -> tuple[Fleet, str]:
    """A call that has talked for a while, through three uplinks."""
    fleet = Fleet(inside=1, outside=1, uplinks=3, **options)
    call_id = fleet.call("in1", "out1")
    fleet.world.run(6.0)
    return fleet, call_id


def swallow(fleet: Fleet, *, up: tuple[int, ...] = (), down: tuple[int, ...] = ()) -> None:
    """A NAT or filter on these uplinks takes media, and lets SIP through."""
    ups, downs = [ADDRESS[n] for n in up], [ADDRESS[n] for n in down]
    fleet.world.phones.swallow = lambda source, target: source in ups or target in downs


def last_move(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = [row for wave in fleet.nms.command("moves") for row in wave["each"]][-1]
    return found


@pytest.mark.req("R7")
def test_a_path_that_swallows_what_comes_in_is_left_for_the_next() -> None:
    fleet, call_id = calling()
    swallow(fleet, down=(1,))
    fleet.cut(0)
    fleet.world.run(8.0)
    assert fleet.uplink_of(call_id) == ADDRESS[2]
    assert fleet.talking(call_id, "in1", "out1")
    assert (last_move(fleet)["ended"], last_move(fleet)["reason"]) == ("verified", "")
    assert [wave["invites"] for wave in fleet.nms.command("moves")] == [2]
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R7")
def test_where_none_is_better_the_policy_s_favourite_stays_and_what_works_goes_on() -> None:
    fleet, call_id = calling()
    swallow(fleet, down=(1, 2))
    fleet.cut(0)
    fleet.world.run(20.0)
    assert fleet.uplink_of(call_id) == ADDRESS[1]
    assert fleet.talking(call_id, "out1"), "the far end hears the phone"
    row = last_move(fleet)
    assert (row["ended"], row["reason"]) == ("unverified", "not heard")
    assert (row["media_up"], row["media_down"]) == ("seen", "missing")
    assert fleet.nms.counts["moves", ("carrier", "unverified", "not heard")] == 1
    swallow(fleet)
    assert fleet.talking(call_id, "in1", "out1"), "the filter is gone, and so is the silence"
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R7")
def test_media_that_come_late_are_waited_for_where_they_come() -> None:
    fleet, call_id = calling()
    swallow(fleet, down=(1, 2))
    fleet.cut(0)
    fleet.world.run(2.6)  # the second uplink has been given up by now
    assert fleet.uplink_of(call_id) == ADDRESS[2]
    swallow(fleet, down=(2,))
    fleet.world.run(6.0)
    assert fleet.uplink_of(call_id) == ADDRESS[1]
    assert last_move(fleet)["ended"] == "verified"
    assert fleet.talking(call_id, "in1", "out1")


@pytest.mark.req("R7", "RO-10")
def test_a_drain_to_a_path_that_swallows_media_goes_on_to_the_next() -> None:
    fleet, call_id = calling()
    swallow(fleet, down=(1,))
    fleet.operator(1, "off")
    fleet.world.run(8.0)
    assert fleet.uplink_of(call_id) == ADDRESS[2]
    assert fleet.talking(call_id, "in1", "out1")


@pytest.mark.req("R7")
@pytest.mark.parametrize(
    ("holder", "ended", "place"),
    [
        pytest.param("in1", ("verified", "seen", "held"), 1, id="the phone plays music"),
        pytest.param("out1", ("verified", "held", "seen"), 2, id="the far end does, and is to be heard"),
    ],
)
def test_of_a_call_on_hold_the_one_direction_is_judged_that_has_media(
    holder: str, ended: tuple[str, str, str], place: int
) -> None:
    fleet, call_id = calling()
    phone = fleet.phones[holder]
    phone.command("hold", call_id=call_id)
    assert fleet.world.run_until(lambda: bool(phone.notices("held")), within=10.0)
    fleet.world.run(8.0)
    swallow(fleet, down=(1,))
    fleet.cut(0)
    fleet.world.run(12.0)
    row = last_move(fleet)
    assert (row["ended"], row["media_up"], row["media_down"]) == ended
    assert fleet.uplink_of(call_id) == ADDRESS[place]
    assert [wave["invites"] for wave in fleet.nms.command("moves")] == [place]
    swallow(fleet)
    phone.command("resume", call_id=call_id)
    assert fleet.world.run_until(lambda: bool(phone.notices("resumed")), within=10.0)
    fleet.world.run(1.0)
    assert fleet.talking(call_id, "in1", "out1")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R7")
def test_who_said_nothing_before_is_not_looked_for() -> None:
    fleet, call_id = calling()
    outer = fleet.stream("out1", call_id)
    mute: Callable[[str, str], bool] = lambda source, _target: source == outer.address[0]  # noqa: E731
    fleet.world.phones.swallow = mute
    fleet.world.run(10.0)
    fleet.cut(0)
    fleet.world.run(12.0)
    row = last_move(fleet)
    assert (row["ended"], row["reason"]) == ("unverified", "silent")
    assert fleet.uplink_of(call_id) == ADDRESS[1]
    fleet.world.phones.swallow = None
    assert fleet.talking(call_id, "in1", "out1")


@pytest.mark.req("R7", "R18")
def test_a_path_that_comes_back_is_tried_for_calls_that_are_heard_by_no_other() -> None:
    fleet, call_id = calling()
    for number in range(3):
        fleet.cut(number)
    fleet.world.run(15.0)  # who spoke before the outage is remembered
    swallow(fleet, down=(1,))
    fleet.mend(1)
    fleet.world.run(8.0)
    assert (last_move(fleet)["ended"], last_move(fleet)["reason"]) == ("unverified", "not heard")
    fleet.mend(2)
    assert fleet.world.run_until(lambda: fleet.uplink_of(call_id) == ADDRESS[2], within=15.0)
    assert fleet.talking(call_id, "in1", "out1")
    assert last_move(fleet)["ended"] == "verified"
    fleet.mend(0)
    fleet.world.run(15.0)
    assert fleet.uplink_of(call_id) == ADDRESS[2]  # R15
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R7")
def test_a_path_that_comes_back_and_is_no_better_keeps_no_call() -> None:
    fleet, call_id = calling()
    fleet.cut(2)
    fleet.world.run(1.0)
    swallow(fleet, down=(1, 2))
    fleet.cut(0)
    fleet.world.run(8.0)
    fleet.mend(2)
    fleet.world.run(30.0)
    assert fleet.uplink_of(call_id) == ADDRESS[1]
    assert sum(wave["invites"] for wave in fleet.nms.command("moves")) == 3  # there, to the other, and back
    assert last_move(fleet)["reason"] == "not heard"
