"""Many calls lose their uplink at once: what the gateway's own pace adds to the round trip, to the millisecond."""

from __future__ import annotations

import io

import pytest

from sipnemo.app.lab import builders
from sipnemo.lab.line import Quality
from sipnemo.lab.live import Screen
from sipnemo.lab.perform import plan_of
from sipnemo.lab.scenario import Scenario, Step, Uplink
from sipnemo.lab.simulated import Simulation


@pytest.mark.req("R1", "MH-12")
def test_re_invites_over_a_path_of_unknown_capacity_leave_as_fast_as_pace_allows() -> None:
    cut = Step(1.0, "carrier-down", uplink=1)
    scenario = Scenario("t", "s", (Uplink(1, Quality()), Uplink(2, Quality())), 150, 0, (cut,), 1.5)
    played = Simulation(scenario, builders(scenario), plan_of(scenario), seed=1)
    run = played.run(Screen(io.StringIO()))
    sent = [
        at
        for at, source, _, data in played.world.network.sent
        if data.startswith(b"INVITE") and at >= run.moves[0].event.at
    ]
    assert len(sent) == 150
    assert sent[99] == sent[0]  # a hundredth of a second's worth at once
    assert sent[149] - sent[0] <= 50 / 10_000 + 0.001
