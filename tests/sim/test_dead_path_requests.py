"""What the far end asks within a call while a path is dead finds the gateway by another in less than a second."""

from __future__ import annotations

import pytest

from sim.fleet import Fleet


@pytest.mark.req("MH-11", "RO-7", "R2")
@pytest.mark.parametrize("under_way", [0.0, 0.005, 0.02, 0.05])
@pytest.mark.parametrize("asked", ["hold", "hang up"])
def test_a_askedwithin_a_call_does_not_wait_for_a_dead_path(asked: str, under_way: float) -> None:
    """`under_way`: seconds after the request at which the path falls silent, so request or answer are lost."""
    fleet = Fleet(inside=1, outside=1)
    call_id = fleet.call("in1", "out1")
    fleet.world.run(3.0)
    if not under_way:
        fleet.silence(0)
    if asked == "hold":
        fleet.phones["out1"].command("hold", call_id=call_id)
    else:
        fleet.hang_up("out1", call_id)
    if under_way:
        fleet.world.run(under_way)
        fleet.silence(0)

    def done() -> bool:
        if asked == "hold":
            return bool(fleet.phones["out1"].notices("held"))
        return fleet.ended("in1", call_id) is not None

    assert fleet.world.run_until(done, 1.0 - under_way), fleet.story(call_id)
    if asked == "hold":
        fleet.hang_up("in1")
    assert fleet.leaks() == []
