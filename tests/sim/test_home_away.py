"""The home server is away: healthy paths stay ON for their calls, and new calls are tried (R12, R17)."""

from __future__ import annotations

import pytest

from sim.fleet import Fleet


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
