"""Random runs with a moody home server: no call is lost, and everything is registered again in the end (R11, R12, R17).

`SIPNEMO_HOME_SEEDS=1000 pytest tests/sim/test_home_seeds.py` plays a thousand; `HOME_SEED=148 pytest …` one again.
"""

from __future__ import annotations

import os

import pytest

from sim.home_chaos import HomeRun

SEEDS = int(os.environ.get("SIPNEMO_HOME_SEEDS", "30"))
ONE = os.environ.get("HOME_SEED", "")


@pytest.mark.req("R11", "R12", "R17", "MH-8", "R14")
def test_no_call_is_lost_and_registration_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    seeds = range(int(ONE), int(ONE) + 1) if ONE else range(1, SEEDS + 1)
    broken, up, calls = [], 0, 0
    for seed in seeds:
        outcome = HomeRun(seed).play()
        up, calls = up + outcome.established, calls + outcome.calls
        if ONE:
            with capsys.disabled():
                print("\n".join(outcome.told))
        if outcome.broken:
            broken.append(f"HOME_SEED={seed}: {'; '.join(outcome.broken)}")
    assert not broken, "\n".join(broken)
    assert ONE or up > 0.5 * calls
