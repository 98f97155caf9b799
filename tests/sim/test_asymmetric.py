"""One direction of a path is dead, the other lives: the path is OFF, and what still comes is not lost (R13, R7)."""

from __future__ import annotations

import pytest

from sim.fleet import Fleet
from sipnemo.sim.network import Way

FIRST, SECOND = "198.51.100.7", "203.0.113.7"
ENDS = (("in1", "out1"), ("in2", "out2"))


def way(fleet: Fleet, direction: str, number: int = 0) -> Way:
    uplink = fleet.uplinks[number]
    return uplink.up if direction == "up" else uplink.down


@pytest.mark.req("R13", "R7", "MH-3", "RO-10")
@pytest.mark.parametrize("direction", ["up", "down"])
def test_calls_leave_a_path_that_is_dead_in_one_direction(direction: str) -> None:
    fleet = Fleet()
    calls = [fleet.call("in1", "out1"), fleet.call("out2", "in2")]
    fleet.world.run(2.0)
    began = fleet.world.now
    way(fleet, direction).silent = True
    fleet.world.run(3.0)
    (moved,) = fleet.nms.notices("moved")
    assert (moved["cause"], moved["ended"]) == ("probe", {"verified": 2})
    for call_id, (inner, outer) in zip(calls, ENDS, strict=True):
        assert fleet.uplink_of(call_id) == SECOND
        up, down = fleet.stream(outer, call_id), fleet.stream(inner, call_id)
        dead, living = (up, down) if direction == "up" else (down, up)
        assert dead.longest_gap(began - 0.1, began + 2.9) <= 0.45
        other = up if living is down else down
        assert living.lost_between(began - 0.5, began + 2.5, other) == 0
    fleet.hang_up("in1")
    fleet.hang_up("out2")
    fleet.world.run(1.0)
    assert not fleet.up("out1", calls[0])
    assert not fleet.up("in2", calls[1])


@pytest.mark.req("R13", "MH-3")
@pytest.mark.parametrize("direction", ["up", "down"])
def test_an_idle_path_that_is_dead_in_one_direction_is_not_used(direction: str) -> None:
    fleet = Fleet()
    way(fleet, direction).silent = True
    fleet.world.run(6.0)
    assert [path.address for path in fleet.nms_node.paths.on()] == [SECOND]
    assert fleet.uplink_of(fleet.call("in1", "out1")) == SECOND
    assert fleet.uplink_of(fleet.call("out2", "in2", within=8.0)) == SECOND


@pytest.mark.req("R13", "R15", "R18")
@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_only_path_is_used_again_when_both_directions_live(direction: str) -> None:
    fleet = Fleet(uplinks=1)
    call_id = fleet.call("in1", "out1")
    fleet.world.run(1.0)
    way(fleet, direction).silent = True
    fleet.world.run(10.0)
    assert fleet.up("in1", call_id)
    assert fleet.up("out1", call_id)
    way(fleet, direction).silent = False
    assert fleet.world.run_until(lambda: fleet.talking(call_id, "in1", "out1", span=0.5), 15.0)
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R13", "R14")
def test_each_direction_of_each_path_may_die_in_turn() -> None:
    fleet = Fleet(uplinks=3)
    call_id = fleet.call("in1", "out1")
    for number, direction in ((0, "up"), (1, "down"), (2, "up"), (0, "down")):
        way(fleet, direction, number).silent = True
        fleet.world.run(2.0)
        assert fleet.talking(call_id, "in1", "out1")
        way(fleet, direction, number).silent = False
        fleet.world.run(8.0)
