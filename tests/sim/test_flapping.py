"""Uplinks that come and go: no call is lost or goes back and forth, and how often calls move is bounded (R13–R15)."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest

from sim.fleet import Fleet
from sipnemo.roles.nms.path.damping import most_moves
from sipnemo.roles.nms.path.paths import Path
from sipnemo.roles.nms.settings import DampingSettings, PolicySettings, ProbeSettings

FIRST, SECOND, THIRD = "198.51.100.7", "203.0.113.7", "198.18.0.7"
DEFAULT = DampingSettings()
UNSTEADY = (0, 0, 0, 0, 0, 0, 1, 1, 1, 2)
"Which uplink fails next: the preferred one mostly, the third one at times."
ENDS = (("in1", "out1"), ("out2", "in2"), ("in2", "out1"), ("out2", "in1"))


def flap(fleet: Fleet, number: int, times: int, off: float = 0.5, on: float = 7.0) -> None:
    """An uplink fails so many times, each after it was ON again."""
    for _ in range(times):
        fleet.cut(number)
        fleet.world.run(off)
        fleet.mend(number)
        fleet.world.run(on)


def row(fleet: Fleet, eface_id: int) -> dict[str, Any]:
    return next(path for path in fleet.nms.command("paths") if path["eface_id"] == eface_id)


@pytest.mark.req("R15", "MH-3")
def test_a_flapping_link_moves_no_call_back() -> None:
    fleet = Fleet()
    call = fleet.call("in1", "out1")
    flap(fleet, 0, 5)
    assert fleet.uplink_of(call) == SECOND
    assert sum(wave.calls for wave in fleet.nms_node.handover.waves) == 1


@pytest.mark.req("R13", "R15")
def test_a_path_that_flaps_is_used_last_and_says_until_when() -> None:
    fleet = Fleet()
    flap(fleet, 0, 2)
    assert row(fleet, 1)["reuse_in"] is None
    flap(fleet, 0, 1)
    shown = row(fleet, 1)
    assert shown["status"] == "ON"
    assert shown["flaps"] == 3
    assert 1.0 < shown["penalty"] < 3.0
    assert 50.0 < shown["reuse_in"] < 90.0
    outward, inward = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    assert fleet.uplink_of(outward) == fleet.uplink_of(inward) == SECOND
    fleet.world.run(shown["reuse_in"] + 1.0)
    assert row(fleet, 1)["reuse_in"] is None
    assert fleet.uplink_of(fleet.call("in2", "out1")) == FIRST
    assert fleet.uplink_of(outward) == SECOND
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R13", "R2")
def test_a_suppressed_path_serves_at_once_when_there_is_no_other() -> None:
    fleet = Fleet()
    call = fleet.call("in1", "out1")
    flap(fleet, 0, 4)
    assert row(fleet, 1)["reuse_in"] > 0
    began = fleet.world.now
    fleet.cut(1)
    fleet.world.run(1.0)
    assert fleet.uplink_of(call) == FIRST
    down, up = fleet.stream("in1", call), fleet.stream("out1", call)
    assert max(down.longest_gap(began - 0.1, began + 0.9), up.longest_gap(began - 0.1, began + 0.9)) < 0.1
    assert fleet.uplink_of(fleet.call("in2", "out2")) == FIRST


@pytest.mark.req("R13")
def test_of_suppressed_paths_the_one_that_flapped_least_is_used() -> None:
    fleet = Fleet(uplinks=3, nms={"damping": DampingSettings(half_life=1000.0, longest=5000.0)})
    flap(fleet, 0, 6)
    flap(fleet, 1, 4)
    flap(fleet, 2, 8)
    assert [path.eface.id for path in fleet.nms_node.ranked(None)] == [2, 1, 3]


def test_the_operators_on_is_stronger_and_the_operators_off_is_no_failure() -> None:
    fleet = Fleet()
    for _ in range(5):
        fleet.operator(1, "off")
        fleet.operator(1, "auto")
    assert row(fleet, 1)["flaps"] == 0
    flap(fleet, 0, 4)
    assert fleet.nms_node.ranked(None)[0].eface.id == 2
    fleet.operator(1, "on")
    assert fleet.nms_node.ranked(None)[0].eface.id == 1


def test_a_new_address_does_not_clear_the_record() -> None:
    fleet = Fleet()
    for number in range(5):
        fleet.readdress(0)
        fleet.world.run(0.5)
        fleet.readdress(0, f"198.51.100.{20 + number}")
        fleet.world.run(7.0)
    assert row(fleet, 1)["flaps"] == 5
    assert row(fleet, 1)["reuse_in"] > 0


@pytest.mark.req("R14", "R1")
@pytest.mark.parametrize("kind", ["cut", "silence"])
def test_each_path_is_killed_in_turn_and_none_is_privileged(kind: str) -> None:
    fleet = Fleet(uplinks=3, nms={"damping": DampingSettings(suppress=50.0)})
    calls = [fleet.call(*ends) for ends in ENDS]
    seen = set()
    before = None
    for number in (0, 1, 2, 0, 1, 2):
        getattr(fleet, kind)(number)
        fleet.world.run(3.0)
        used = {fleet.uplink_of(call) for call in calls}
        assert used == {fleet.uplinks[(number + 1) % 3].addresses[0]}
        seen |= used
        for (caller, callee), call in zip(ENDS, calls, strict=True):
            assert fleet.talking(call, caller, callee)
        if before is not None:
            fleet.mend(before)
            fleet.world.run(8.0)
        before = number
    assert seen == {FIRST, SECOND, THIRD}
    fleet.hang_up_everything()
    assert fleet.leaks() == []


# --------------------------------------------------------------------------------------------------------- the return


def away(policy: PolicySettings, **nms: Any) -> tuple[Fleet, list[str]]:
    """Calls that had to leave the first uplink, one of them urgent, one on hold; the uplink is back."""
    fleet = Fleet(nms={"policy": policy, **nms})
    calls = [fleet.call(*ends) for ends in ENDS]
    fleet.phones["in1"].command("hold", call_id=calls[0])
    fleet.world.run(1.0)
    fleet.cut(0)
    fleet.world.run(3.0)
    assert {fleet.uplink_of(call) for call in calls} == {SECOND}
    fleet.mend(0)
    return fleet, calls


@pytest.mark.req("R15")
@pytest.mark.parametrize(
    ("returning", "back"), [("never", set()), ("idle", {0}), ("by-class", {0, 1, 2, 3})], ids=["never", "idle", "all"]
)
def test_which_calls_go_back(returning: Any, back: set[int]) -> None:
    fleet, calls = away(PolicySettings(returning=returning, return_after=20.0))
    fleet.world.run(22.0)
    assert {fleet.uplink_of(call) for call in calls} == {SECOND}  # hold-down, then return_after
    fleet.world.run(20.0)
    assert {n for n, call in enumerate(calls) if fleet.uplink_of(call) == FIRST} == back


@pytest.mark.req("R15")
def test_calls_return_one_class_at_a_time_and_lose_nothing() -> None:
    fleet, calls = away(PolicySettings(returning="by-class", return_after=10.0, urgent=("in1",)))
    began = fleet.world.now
    fleet.world.run(30.0)
    waves = [wave for wave in fleet.nms_node.handover.waves if wave.cause == "return"]
    # in1 is urgent, but its call on hold goes first all the same: with it nobody's speech is at risk.
    moved = [{record.call_id for record in wave.records} for wave in waves]
    assert moved == [{calls[0]}, {calls[1], calls[2]}, {calls[3]}]
    for earlier, later in pairwise(waves):
        assert earlier.done_at is not None
        assert later.began_at >= earlier.done_at
    for (caller, callee), call in list(zip(ENDS, calls, strict=True))[1:]:
        one, other = fleet.stream(caller, call), fleet.stream(callee, call)
        assert one.lost_between(began, began + 29.0, other) == 0
        assert other.lost_between(began, began + 29.0, one) == 0


@pytest.mark.req("R15", "R7")
def test_a_class_that_is_not_heard_on_the_better_path_is_the_last_to_try() -> None:
    fleet, calls = away(PolicySettings(returning="by-class", return_after=10.0, urgent=("in1",)))
    for number in (1, 2):
        fleet.refuse_moves(ENDS[number][0 if ENDS[number][0].startswith("out") else 1], *[488] * 3)
    fleet.world.run(40.0)
    assert fleet.uplink_of(calls[3]) == SECOND
    assert all(fleet.up(name, call) for ends, call in zip(ENDS, calls, strict=True) for name in ends)


@pytest.mark.req("R15")
def test_calls_do_not_return_to_a_path_that_flaps_until_it_is_quiet() -> None:
    fleet = Fleet(nms={"policy": PolicySettings(returning="by-class", return_after=2.0)})
    call = fleet.call("in1", "out1")
    flap(fleet, 0, 4, on=6.0)
    fleet.world.run(20.0)
    assert fleet.uplink_of(call) == SECOND
    fleet.world.run(120.0)
    assert fleet.uplink_of(call) == FIRST


# ------------------------------------------------------------------------------------------------- a thousand flaps


def storm(
    seed: int, flaps: int, returning: Any, settings: DampingSettings = DEFAULT, unsteady: tuple[int, ...] = UNSTEADY
) -> dict[str, float]:
    """Random failures of three uplinks while four calls last; what they cost."""
    chance = Random(f"flaps {seed}")
    fleet = Fleet(
        seed,
        uplinks=3,
        rtp_every=1.0,
        nms={
            "probe": ProbeSettings(probe_every=0.25),
            "damping": settings,
            "policy": PolicySettings(returning=returning, return_after=10.0),
        },
    )
    calls = [fleet.call(*ends) for ends in ENDS]
    node, began = fleet.nms_node, fleet.world.now
    forced = 0
    path_off = node.path_off

    def counted(path: Path, cause: str, now: float) -> None:
        nonlocal forced
        forced += bool(path.sessions) and node.damping.is_suppressed(path)
        path_off(path, cause, now)

    node.path_off = counted  # type: ignore[method-assign]
    totals = {"moves": 0, "invites": 0}
    moved = node.handover._settle

    def settled(wave: Any, now: float) -> None:
        before = wave.done_at
        moved(wave, now)
        if before is None and wave.done_at is not None:
            totals["moves"] += wave.calls
            totals["invites"] += wave.invites

    node.handover._settle = settled  # type: ignore[method-assign]
    down: set[int] = set()

    def mend(number: int) -> None:
        down.discard(number)
        fleet.mend(number)

    for _ in range(flaps):
        fleet.world.run(chance.expovariate(1 / 3.0))
        number = chance.choice(unsteady)
        if number in down:
            continue
        down.add(number)
        chance.choice((fleet.cut, fleet.cut, fleet.silence))(number)
        fleet.world.clock.after(chance.uniform(0.05, 6.0), mend, number)
        assert not any(fleet.ended(name, call) for ends, call in zip(ENDS, calls, strict=True) for name in ends)
    for number in list(down):
        mend(number)
    span = fleet.world.now - began
    fleet.world.run(20.0)
    assert all(fleet.up(name, call) for ends, call in zip(ENDS, calls, strict=True) for name in ends)
    assert all(fleet.talking(call, *ends, span=5.0) for ends, call in zip(ENDS, calls, strict=True))
    fleet.hang_up_everything()
    assert fleet.leaks() == []
    bound = most_moves(settings, span, 3) * (1 if returning == "never" else 2)
    return {**totals, "forced": forced, "bound": bound, "span": span}


@pytest.mark.req("R2", "R13", "R14", "R15", "MH-3", "MH-12")
@pytest.mark.parametrize("returning", ["never", "by-class"])
def test_1000_random_flaps_lose_no_call_and_move_each_a_bounded_number_of_times(
    returning: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = storm(1, 1000, returning)
    with capsys.disabled():
        print(f"\n1,000 flaps in {told['span']:.0f} s, return {returning}: {told}")
    assert told["moves"] <= len(ENDS) * (told["bound"] + told["forced"])
    assert told["invites"] <= told["moves"] * 1.2


@pytest.mark.req("R15")
def test_beside_a_steady_uplink_flapping_ones_hardly_move_a_call() -> None:
    """Even with `return`, which without damping would take the calls back and forth."""
    with_damping = storm(3, 300, "by-class", unsteady=(0, 0, 1))
    without = storm(3, 300, "by-class", DampingSettings(suppress=1e6), unsteady=(0, 0, 1))
    assert with_damping["forced"] == 0
    assert with_damping["moves"] <= len(ENDS) * with_damping["bound"]
    assert with_damping["moves"] * 4 < without["moves"]
