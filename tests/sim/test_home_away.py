"""The home server is away: healthy paths stay ON for their calls, and new calls are tried (R12, R17)."""

from __future__ import annotations

from typing import Any

import pytest

from sim.fleet import Fleet
from sipnemo.roles.node import Store, Stored


@pytest.mark.req("R12", "R17")
def test_a_home_server_that_is_away_moves_no_call_and_ends_none() -> None:
    fleet = Fleet()
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(2.0)
    fleet.hs.kill()
    fleet.world.run(60.0)
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")
    assert not any(wave.calls for wave in fleet.nms_node.handover.waves)
    fleet.hs.restart()
    fleet.world.run(30.0)
    assert len(fleet.nms_node.paths.on()) == 2
    assert not any(wave.calls for wave in fleet.nms_node.handover.waves)
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R13", "MH-3")
def test_a_path_that_falls_silent_is_still_told_from_a_home_server_that_does() -> None:
    fleet = Fleet()
    call_id = fleet.call("in1", "out1")
    fleet.world.run(2.0)
    began = fleet.world.now
    fleet.silence(0)
    moved = fleet.world.run_until(lambda: len(fleet.nms_node.paths.on()) == 1, 1.0)
    assert moved
    assert fleet.world.now - began <= 0.3
    assert fleet.talking(call_id, "in1", "out1")
    fleet.hang_up("in1")
    assert fleet.leaks() == []


def calls_and_no_home(away: float, **options: Any) -> tuple[Fleet, str, str]:
    """A call each way, and a home server that has been away for so long."""
    fleet = Fleet(**options)
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(2.0)
    fleet.hs.kill()
    fleet.world.run(away)
    return fleet, out, into


@pytest.mark.req("R17", "R12")
@pytest.mark.parametrize("how", ["carrier", "silence", "drain"])
@pytest.mark.parametrize("away", [0.0, 0.05, 0.5, 3.0, 60.0, 900.0])
def test_calls_move_while_the_home_server_is_away(how: str, away: float) -> None:
    fleet, out, into = calls_and_no_home(away)
    match how:
        case "carrier":
            fleet.cut(0)
        case "silence":
            fleet.silence(0)
        case _:
            fleet.operator(1, "off")
    fleet.world.run(3.0)
    assert fleet.talking(out, "in1", "out1"), fleet.story(out)
    assert fleet.talking(into, "in2", "out2"), fleet.story(into)
    assert fleet.uplink_of(out) == "203.0.113.7"
    fleet.world.run(60.0)
    assert fleet.talking(out, "in1", "out1")
    fleet.hs.restart()
    fleet.world.run(10.0)
    (record,) = [record for record in fleet.hs_node.bindings if record.is_gateway]
    assert [binding.reg_id for binding in record.bindings.values()] == [2]
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R17")
@pytest.mark.parametrize("after", [0.0, 0.01, 0.03, 0.06, 0.2])
def test_a_home_server_that_dies_in_the_middle_of_a_move_is_not_missed(after: float) -> None:
    fleet = Fleet()
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(2.0)
    fleet.cut(0)
    fleet.world.run(after)
    fleet.hs.kill()
    fleet.world.run(3.0)
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")
    fleet.world.run(60.0)
    assert fleet.talking(out, "in1", "out1")


@pytest.mark.req("R17")
def test_a_store_that_fails_while_calls_move_costs_no_call() -> None:
    fleet = Fleet()
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(2.0)
    write = fleet.hs._write

    def full(action: Store, life: int) -> None:
        fleet.hs.handle(Stored(action.ticket, "disk full"))

    fleet.hs._write = full  # type: ignore[method-assign]
    fleet.cut(0)
    fleet.world.run(300.0)
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")
    fleet.hs._write = write  # type: ignore[method-assign]
    fleet.mend(0)
    fleet.world.run(120.0)
    assert all(flow.registered for flow in fleet.nms_node.home.flows.values())
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R17", "R13")
@pytest.mark.parametrize("uplinks", [1, 2])
def test_a_call_on_hold_outlives_the_home_server(uplinks: int) -> None:
    fleet = Fleet(uplinks=uplinks)
    call_id = fleet.call("in1", "out1")
    fleet.world.run(2.0)
    fleet.phones["in1"].command("hold", call_id=call_id)
    fleet.world.run(1.0)
    fleet.hs.kill()
    fleet.world.run(600.0)
    assert fleet.up("in1", call_id), fleet.story(call_id)
    assert fleet.nms_node.paths.on()
    fleet.phones["in1"].command("resume", call_id=call_id)
    fleet.world.run(2.0)
    assert fleet.talking(call_id, "in1", "out1")
    fleet.hang_up_everything()


@pytest.mark.req("R13", "R17")
def test_a_dead_path_is_found_out_while_the_home_server_is_away_too() -> None:
    fleet, out, _ = calls_and_no_home(30.0)
    fleet.silence(0)
    began = fleet.world.now
    assert fleet.world.run_until(lambda: fleet.uplink_of(out) == "203.0.113.7", 1.0)
    assert fleet.world.now - began <= 0.5
    fleet.world.run(5.0)
    fleet.silence(1)
    assert fleet.world.run_until(lambda: not fleet.nms_node.paths.on(), 10.0)
    fleet.world.run(60.0)
    assert not fleet.nms_node.calls.open


@pytest.mark.req("R12", "R17")
def test_who_calls_directly_while_the_home_server_is_away_keeps_the_call() -> None:
    fleet = Fleet()
    fleet.hs.kill()
    fleet.world.run(10.0)
    assert not fleet.nms_node.paths.on()
    call_id = str(fleet.phones["in1"].command("call", uri="sip:out1@192.0.2.101")["call_id"])
    fleet.world.run(3.0)
    assert fleet.up("in1", call_id)
    fleet.world.run(120.0)
    assert fleet.talking(call_id, "in1", "out1"), fleet.story(call_id)
