"""Flap penalties: tables and the bound that follows from them."""

from __future__ import annotations

from random import Random

import pytest

from sipnemo.roles.nms.path.damping import Penalty, most_moves
from sipnemo.roles.nms.settings import DampingSettings

DEFAULT = DampingSettings()


@pytest.mark.req("R13", "R15")
@pytest.mark.parametrize(
    ("flaps", "suppressed"),
    [
        pytest.param([0.0], False, id="once"),
        pytest.param([0.0, 1.0], False, id="twice"),
        pytest.param([0.0, 1.0, 2.0], True, id="three times at once"),
        pytest.param([0.0, 60.0, 120.0], False, id="three times in two minutes"),
        pytest.param([0.0, 30.0, 60.0, 90.0, 120.0], True, id="twice a minute for two minutes"),
        pytest.param([minute * 90.0 for minute in range(1000)], False, id="every 90 s for a day"),
    ],
)
def test_when_a_path_is_suppressed(flaps: list[float], suppressed: bool) -> None:
    penalty = Penalty(DEFAULT)
    assert [penalty.flap(at) for at in flaps][-1] is suppressed


def test_the_penalty_halves_in_each_half_life() -> None:
    penalty = Penalty(DEFAULT)
    penalty.flap(100.0)
    assert penalty.at(100.0) == 1.0
    assert penalty.at(160.0) == pytest.approx(0.5)
    assert penalty.at(220.0) == pytest.approx(0.25)


@pytest.mark.parametrize(("flaps", "after"), [(1, 0.0), (2, 60.0), (4, 120.0), (8, 180.0), (100_000, 600.0)])
def test_when_it_is_used_again(flaps: int, after: float) -> None:
    penalty = Penalty(DEFAULT)
    for _ in range(flaps):
        penalty.flap(5.0)
    assert penalty.reuse_after(5.0) == pytest.approx(after)
    assert penalty.flaps == flaps


def test_penalties_are_ordered_alike_at_any_time() -> None:
    old, new = Penalty(DEFAULT), Penalty(DEFAULT)
    for _ in range(6):
        old.flap(0.0)
    for _ in range(3):
        new.flap(70.0)
    for now in (70.0, 500.0, 5000.0):
        assert (old.weight < new.weight) is (old.at(now) < new.at(now))


@pytest.mark.req("R15")
@pytest.mark.parametrize("seed", range(20))
def test_a_path_that_is_not_suppressed_cannot_flap_more_often_than_the_bound(seed: int) -> None:
    """Against the worst: a path that fails as soon as it is used again, or whenever it may without being suppressed."""
    chance = Random(seed)
    settings = DampingSettings(
        half_life=chance.uniform(5, 300), suppress=chance.uniform(2, 6), reuse=chance.uniform(0.5, 1.9)
    )
    penalty, now, suppressed_until = Penalty(settings), 0.0, 0.0
    greed = chance.choice((0.01, 1.0, 5.0))
    for counted in range(1, 3001):
        now = max(now, suppressed_until) + chance.expovariate(1 / greed)
        assert counted <= most_moves(settings, now, 1)
        if penalty.flap(now):
            suppressed_until = now + penalty.reuse_after(now)
