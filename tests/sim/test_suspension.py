"""No path is ON: calls wait, their phones are answered, and in the end both sides know what became of them (R18)."""

from __future__ import annotations

import pytest

from sim.fleet import Fleet
from sipnemo.roles.nms.settings import SessionSettings

pytestmark = pytest.mark.req("R18")


def suspended(**options: object) -> tuple[Fleet, str, str]:
    """A fleet with a call each way, and no path."""
    fleet = Fleet(**options)  # type: ignore[arg-type]
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(2.0)
    fleet.world.network.keep = True
    fleet.cut(0)
    fleet.cut(1)
    fleet.world.run(0.5)
    return fleet, out, into


def messages(fleet: Fleet, start: str, call_id: str = "") -> list[tuple[float, str, str]]:
    """When, to where and what."""
    return [
        (at, target[0], data.decode("latin-1"))
        for at, _, target, data in fleet.world.network.sent
        if data.startswith(start.encode()) and call_id.encode() in data
    ]


@pytest.mark.parametrize("away", [1.0, 15.0, 29.0])
def test_calls_wait_for_a_path_and_go_on(away: float) -> None:
    fleet, out, into = suspended()
    fleet.world.run(away)
    fleet.mend(1)
    fleet.world.run(3.0)
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


def test_after_suspend_for_both_ends_are_told_and_why() -> None:
    fleet, out, _ = suspended()
    fleet.world.run(31.0)
    assert fleet.ended("in1", out) is not None
    (told,) = [text for _, target, text in messages(fleet, "BYE", out) if target == "10.7.0.11"]
    assert 'Reason: SIP;cause=480;text="no uplink"' in told
    assert not fleet.nms_node.calls.open
    assert fleet.up("out1", out)
    fleet.mend(0)
    fleet.world.run(3.0)
    for name in ("out1", "out2"):
        assert fleet.phones[name].notices("ended")
    byes = [text for _, target, text in messages(fleet, "BYE", out) if target == "192.0.2.101"]
    assert byes
    assert all('Reason: SIP;cause=480;text="no uplink"' in text for text in byes)
    assert len(fleet.nms_node.goodbyes) == 0
    assert fleet.leaks() == []


def test_the_span_is_the_operators() -> None:
    fleet, out, _ = suspended(nms={"session": SessionSettings(suspend_for=120.0)})
    fleet.world.run(110.0)
    assert fleet.up("in1", out)
    fleet.mend(0)
    fleet.world.run(3.0)
    assert fleet.talking(out, "in1", "out1")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


def test_a_hang_up_is_answered_at_once_and_the_far_end_hears_of_it_later() -> None:
    fleet, out, into = suspended()
    began = fleet.world.now
    fleet.hang_up("in1", out)
    fleet.hang_up("in2", into)
    fleet.world.run(0.2)
    answers = [at for at, target, text in messages(fleet, "SIP/2.0 200", out) if "BYE" in text]
    assert answers
    assert answers[0] - began < 0.01
    assert not fleet.nms_node.calls.open
    fleet.world.run(60.0)
    assert fleet.up("out1", out)
    fleet.mend(1)
    fleet.world.run(3.0)
    assert fleet.phones["out1"].notices("ended")
    assert fleet.phones["out2"].notices("ended")
    assert fleet.leaks() == []


def test_a_hang_up_that_the_last_path_took_with_it_is_said_again() -> None:
    fleet = Fleet()
    out = fleet.call("in1", "out1")
    fleet.world.run(2.0)
    fleet.silence(0)
    fleet.silence(1)
    fleet.hang_up("in1", out)
    fleet.world.run(20.0)
    assert not fleet.nms_node.calls.open
    fleet.mend(0)
    fleet.world.run(10.0)
    assert fleet.phones["out1"].notices("ended")
    assert fleet.leaks() == []


@pytest.mark.parametrize("away", [2.0, 20.0])
def test_a_hold_waits_and_is_done_when_a_path_returns(away: float) -> None:
    fleet, out, _ = suspended()
    fleet.phones["in1"].command("hold", call_id=out)
    fleet.world.run(away)
    assert fleet.up("in1", out)
    fleet.mend(0)
    fleet.world.run(5.0)
    begin = fleet.world.now
    fleet.world.run(2.0)
    assert fleet.stream("in1", out).received_between(begin, begin + 2.0) == 0, "the far end is held"
    fleet.phones["in1"].command("resume", call_id=out)
    fleet.world.run(2.0)
    assert fleet.talking(out, "in1", "out1")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


def test_a_hold_that_waits_ends_with_the_call() -> None:
    fleet, out, _ = suspended()
    fleet.phones["in1"].command("hold", call_id=out)
    fleet.world.run(40.0)
    assert fleet.ended("in1", out) is not None
    fleet.mend(0)
    fleet.world.run(5.0)
    assert fleet.leaks() == []


def test_a_path_that_comes_and_goes_begins_the_span_anew() -> None:
    fleet, out, into = suspended()
    for _ in range(4):
        fleet.world.run(25.0)
        fleet.mend(1)
        fleet.world.run(1.0)
        fleet.cut(1)
    fleet.world.run(20.0)
    fleet.mend(1)
    fleet.world.run(4.0)
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


def test_many_goodbyes_leave_room_for_the_living() -> None:
    fleet = Fleet(inside=1, outside=40)
    calls = [fleet.call("in1", f"out{number}") for number in range(1, 41)]
    fleet.world.run(1.0)
    fleet.world.network.keep = True
    fleet.cut(0)
    fleet.cut(1)
    fleet.world.run(0.5)
    for call_id in calls[:-1]:
        fleet.hang_up("in1", call_id)
    fleet.world.run(1.0)
    fleet.mend(1)
    fleet.world.run(0.2)
    byes = [at for at, target, _ in messages(fleet, "BYE") if target.startswith("192.0.2.1")]
    assert len(byes) <= 14
    fleet.world.run(3.0)
    assert fleet.talking(calls[-1], "in1", "out40")
    assert all(fleet.phones[f"out{number}"].notices("ended") for number in range(1, 40))
    fleet.hang_up_everything()
    assert fleet.leaks() == []
