"""Many calls move at once: what leaves when, and what a thin uplink or a busy next hop makes of it (MH-12, R2)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from sim.fleet import Fleet, nms_settings
from sipnemo.roles.nms.move.hops import OFFER
from sipnemo.roles.nms.settings import MediaSettings, MoveSettings, PolicySettings
from sipnemo.sip.message import Request
from sipnemo.sip.parser import parse

SECOND = "203.0.113.7"


def many(calls: int, capacity: int | None = None, rtp_every: float = 1.5, **changes: Any) -> tuple[Fleet, list[str]]:
    """A gateway whose second uplink has this capacity, and so many calls over its first."""
    efaces = nms_settings(2).efaces
    changes["efaces"] = (efaces[0], replace(efaces[1], capacity=capacity))
    changes["media"] = MediaSettings(ports=(16384, 16383 + 4 * calls))
    fleet = Fleet(nms=changes, rtp_every=rtp_every)
    ids = []
    for number in range(calls):
        ends = ("in1", "out1") if number % 2 else ("out2", "in2")
        ids.append(fleet.dial(*ends))
        fleet.world.run(0.05)
    fleet.world.run(2.0)
    assert sum(session.live for session in fleet.nms_node.calls.open) == calls
    return fleet, ids


def reinvites(fleet: Fleet) -> list[tuple[float, Request]]:
    """The INVITEs that left by the second uplink, repeated ones included."""
    found = []
    for at, source, _, data in fleet.world.network.sent:
        if source[0] == SECOND and data.startswith(b"INVITE "):
            message = parse(data)
            assert isinstance(message, Request)
            found.append((at, message))
    return found


def alive(fleet: Fleet, ids: list[str]) -> bool:
    """Whether every call is up at both ends, on the second uplink."""
    return all(
        fleet.up("in1" if number % 2 else "in2", call_id)
        and fleet.up("out1" if number % 2 else "out2", call_id)
        and fleet.uplink_of(call_id) == SECOND
        for number, call_id in enumerate(ids)
    )


@pytest.mark.req("MH-12", "R2", "R1")
def test_500_calls_move_over_a_thin_uplink_and_nothing_is_dropped_because_of_us() -> None:
    """1 Mbit/s, 300 ms round trip; media that fit: 500 × 200 + 28 octets in 1.5 s are 608 kbit/s in each direction."""
    fleet, ids = many(500, capacity=1_000_000)
    link = fleet.uplinks[1]
    link.delay = 0.15
    fleet.world.run(12.0)  # so that the probes know its round trip
    link.up.rate = link.down.rate = 1_000_000.0
    network = fleet.world.network
    network.keep = True
    network.lost.clear()
    began = fleet.world.now
    fleet.cut(0)
    wave = fleet.nms_node.handover.waves[-1]
    assert fleet.world.run_until(lambda: wave.done_at is not None, within=60.0)
    ended = fleet.world.now
    sent = reinvites(fleet)
    assert {message.call_id for _, message in sent} == set(ids)
    assert len(sent) == 500  # none had to be repeated
    assert link.up.dropped == link.down.dropped == 0
    assert max(link.up.waited, link.down.waited) < 0.1
    assert {record.outcome for record in wave.records} == {"verified"}
    assert alive(fleet, ids)
    # 500 exchanges of less than 2,000 octets each way, in what media leave of 95 % of the capacity.
    assert ended - began < 500 * 2_000 * 8 / (0.95 * 1e6 - 0.61e6) + 1.0
    for number, call_id in enumerate(ids):
        inner, outer = ("in1", "out1") if number % 2 else ("in2", "out2")
        up, down = fleet.stream(outer, call_id), fleet.stream(inner, call_id)
        assert up.lost_between(began + 0.1, ended - 1.0, down) == 0
    fleet.hang_up_everything()
    assert fleet.leaks(120.0, crosstalk=False) == []


@pytest.mark.req("MH-12")
def test_the_same_without_knowing_the_capacity_recovers_by_closing_the_window() -> None:
    fleet, ids = many(300)
    link = fleet.uplinks[1]
    link.delay = 0.15
    fleet.world.run(12.0)
    link.up.rate = link.down.rate = 1_000_000.0
    fleet.world.network.keep = True
    fleet.cut(0)
    wave = fleet.nms_node.handover.waves[-1]
    assert fleet.world.run_until(lambda: wave.done_at is not None, within=60.0)
    assert alive(fleet, ids)
    assert link.up.dropped > 0  # it could not know
    assert fleet.nms_node.paths.on()  # nor were the lost probes held against the path
    assert len(reinvites(fleet)) < 2.5 * 300


@pytest.mark.req("MH-12")
def test_urgent_calls_leave_first_then_those_that_speak_then_those_on_hold() -> None:
    policy = PolicySettings(urgent=("out2",))
    fleet, ids = many(8, policy=policy, move=MoveSettings(pace=1.0))
    assert fleet.phones["in1"].command("hold", call_id=ids[1]) is not None
    fleet.world.run(1.0)
    fleet.world.network.keep = True
    fleet.cut(0)
    fleet.world.run(12.0)
    order = [message.call_id for _, message in reinvites(fleet)]
    assert set(order[:4]) == {ids[n] for n in (0, 2, 4, 6)}
    assert order[-1] == ids[1]


@pytest.mark.req("MH-12")
def test_the_pace_is_kept() -> None:
    fleet, _ = many(60, move=MoveSettings(pace=20.0))
    fleet.world.network.keep = True
    began = fleet.world.now
    fleet.cut(0)
    fleet.world.run(5.0)
    times = [at - began for at, _ in reinvites(fleet)]
    assert len(times) == 60
    assert times[-1] == pytest.approx(59 / 20, abs=0.1)


@pytest.mark.req("MH-12", "R2")
def test_a_503_to_one_call_slows_all_that_go_the_same_way() -> None:
    fleet, ids = many(40, move=MoveSettings(pace=200.0))
    fleet.refuse_moves("out1", *[(503, "Retry-After: 3")] * 3)
    fleet.world.network.keep = True
    began = fleet.world.now
    fleet.cut(0)
    wave = fleet.nms_node.handover.waves[-1]
    assert fleet.world.run_until(lambda: wave.done_at is not None, within=60.0)
    assert alive(fleet, ids)
    sent = [at - began for at, _ in reinvites(fleet)]
    # What had left before the first 503 came back has left; then nothing for its three seconds.
    assert max(later - earlier for earlier, later in pairwise(sent)) > 2.8


@pytest.mark.req("MH-12")
def test_overload_control_puts_moves_off_and_gives_none_up() -> None:
    fleet, ids = many(60, move=MoveSettings(pace=200.0))
    network = fleet.world.network
    asked: list[float] = []

    def overloaded(data: bytes) -> bytes:
        if OFFER.encode() in data and data.startswith(b"SIP/2.0 ") and fleet.world.now < until:
            asked.append(fleet.world.now)
            return data.replace(OFFER.encode(), b';oc=80;oc-algo="loss";oc-validity=2000;oc-seq=%.3f' % fleet.world.now)
        return data

    until = fleet.world.now + 2.0
    send = network.send
    network.send = lambda host, data, flow: send(host, overloaded(data), flow)  # type: ignore[method-assign]
    network.keep = True
    fleet.cut(0)
    wave = fleet.nms_node.handover.waves[-1]
    assert fleet.world.run_until(lambda: wave.done_at is not None, within=60.0)
    assert asked
    assert alive(fleet, ids)
    assert wave.invites == 60
    sent = [at - wave.began_at for at, _ in reinvites(fleet)]
    assert 10 < sum(at < 0.5 for at in sent) < 50  # unasked, it would be all 60
    assert sent[-1] > 1.0


def test_every_reinvite_offers_overload_control_and_nothing_else_does() -> None:
    fleet, _ = many(4)
    fleet.world.network.keep = True
    fleet.cut(0)
    fleet.world.run(2.0)
    sent = reinvites(fleet)
    assert sent
    assert all(OFFER in message.value("via") for _, message in sent)
    others = [
        data for _, source, _, data in fleet.world.network.sent if source[0] == SECOND and b"INVITE sip" not in data
    ]
    assert others
    assert not any(OFFER.encode() in data.partition(b"\r\nVia:")[2].partition(b"\r\n")[0] for data in others)


@pytest.mark.req("MH-12", "R2")
def test_a_path_that_fails_while_calls_wait_for_it_gives_them_to_the_next() -> None:
    efaces = nms_settings(3).efaces
    efaces = (efaces[0], replace(efaces[1], capacity=50_000), efaces[2])
    fleet = Fleet(uplinks=3, nms={"efaces": efaces}, rtp_every=1.0)
    ids = []
    for number in range(30):
        ids.append(fleet.dial(*(("in1", "out1") if number % 2 else ("out2", "in2"))))
        fleet.world.run(0.1)
    fleet.world.run(2.0)
    fleet.cut(0)
    fleet.world.run(1.0)
    assert not fleet.nms_node.handover.pacing.idle  # at 25 kbit/s not half of them can have left
    fleet.cut(1)
    fleet.world.run(6.0)
    assert {fleet.uplink_of(call_id) for call_id in ids} == {"198.18.0.7"}
    assert all(fleet.up("in1" if n % 2 else "in2", call_id) for n, call_id in enumerate(ids))
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("MH-12", "RO-10")
def test_without_a_known_capacity_a_few_calls_all_move_at_the_very_instant() -> None:
    fleet, ids = many(40)
    fleet.world.network.keep = True
    began = fleet.world.now
    fleet.cut(0)
    assert [at for at, _ in reinvites(fleet)] == [began] * len(ids)


@pytest.mark.req("RO-10", "MH-12")
def test_the_calls_of_a_silent_path_are_prepared_when_it_is_given_up() -> None:
    fleet = Fleet()
    calls = [fleet.call("in1", "out1"), fleet.call("out2", "in2")]
    sessions = list(fleet.nms_node.calls.open)
    for session in sessions:
        assert session.media is not None
        assert session.media._prepared is None
    fleet.silence(0)
    assert fleet.world.run_until(lambda: all(s.media is not None and s.media._prepared for s in sessions), step=0.001)
    assert len(fleet.nms_node.paths.on()) == 2  # it is in doubt, and no more
    offers = [session.media._prepared.offer for session in sessions if session.media and session.media._prepared]
    fleet.world.network.keep = True
    fleet.world.run(2.0)
    sent = [data.decode() for _, _, _, data in fleet.world.network.sent if data.startswith(b"INVITE ")]
    used = [any(data.endswith(offer) for data in sent) for offer in offers]
    assert used == [True, True]
    assert {fleet.uplink_of(call) for call in calls} == {SECOND}
