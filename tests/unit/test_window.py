"""How many requests may be under way, and how fast octets may leave."""

from __future__ import annotations

import pytest

from sipnemo.roles.nms.move.window import LEAST, Meter, Window


def test_the_window_opens_by_one_with_every_answer() -> None:
    window = Window(10.0, 0.3)
    for number in range(40):
        window.answered(0.3, number * 0.01)
    assert window.size == 50.0


@pytest.mark.parametrize(
    ("answered", "size"),
    [
        pytest.param(90, 90.0, id="one in ten lost: a tenth less"),
        pytest.param(15, 15.0, id="a queue has overflowed: what got through"),
        pytest.param(0, LEAST, id="nothing got through: the least, never none"),
    ],
)
def test_a_loss_closes_the_window_to_what_got_through(answered: int, size: float) -> None:
    window = Window(1000.0, 0.05)
    window.size = 100.0
    window.threshold = 0.0  # so that answers do not open it by much
    for _ in range(answered):
        window.answered(0.05, 0.1)
    window.lost(0.5)
    assert window.size == size


def test_losses_of_one_round_trip_count_once() -> None:
    window = Window(1000.0, 0.05)
    for _ in range(400):
        window.answered(0.05, 0.1)
    for number in range(100):
        window.lost(0.5 + number * 0.001)
    assert window.size == 400.0
    window.lost(1.2)
    assert window.size == LEAST


def test_behind_a_loss_it_opens_by_one_a_round_trip() -> None:
    window = Window(100.0, 0.05)
    for _ in range(50):
        window.answered(0.05, 0.1)
    window.lost(0.5)
    for _ in range(50):
        window.answered(0.05, 0.6)
    assert window.size == pytest.approx(51.0, abs=0.1)


def test_late_answers_close_it_before_anything_is_lost() -> None:
    window = Window(100.0, 0.1)
    for number in range(200):
        window.answered(0.6, 1.0 + number * 0.05)
    assert window.size < 40.0


def test_somewhat_late_answers_only_stop_its_growth() -> None:
    window = Window(100.0, 0.2)
    for _ in range(30):
        window.answered(0.55, 1.0)
    grown = window.size
    for _ in range(100):
        window.answered(0.55, 2.0)
    assert window.size == grown


def test_the_answer_to_a_repeated_request_measures_nothing() -> None:
    window = Window(10.0, 0.1)
    window.answered(None, 1.0)
    assert window.smoothed == 0.1


@pytest.mark.parametrize(("rtt", "patience"), [(None, 0.5), (0.05, 0.5), (0.3, 0.6), (1.2, 2.4)])
def test_patience_is_t1_or_two_round_trips(rtt: float | None, patience: float) -> None:
    assert Window(10.0, rtt).patience == patience


def test_a_meter_lets_through_at_its_rate() -> None:
    meter = Meter()
    left, now = 0, 10.0
    while now < 11.0:
        meter.take(1024, 131_072, now)
        left += 1
        now = meter.ready_at
    assert left == 128


def test_a_meter_saves_nothing_up_and_takes_back() -> None:
    meter = Meter()
    meter.take(1000, 1000, 0.0)
    assert meter.ready_at == 1.0
    meter.take(-500, 1000, 0.5)
    assert meter.ready_at == 0.5
    meter.take(1000, 1000, 100.0)
    assert meter.ready_at == 101.0


def test_a_burst_may_be_ahead() -> None:
    meter = Meter(0.01)
    passed = 0
    while meter.ready_at <= 5.0:
        meter.take(1, 5000, 5.0)
        passed += 1
    assert passed in (50, 51)
