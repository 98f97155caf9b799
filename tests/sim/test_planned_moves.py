"""A path is left that still works: nothing is lost, nothing is hurried, and the old path is let go at the end (R10)."""

from __future__ import annotations

from typing import Any

import pytest

from sim.fleet import Fleet
from sipnemo.media.flow import INSIDE
from sipnemo.roles.nms.settings import MoveSettings
from sipnemo.roles.node import Tick
from sipnemo.sip.message import Request
from sipnemo.sip.parser import parse

FIRST, SECOND, THIRD = "198.51.100.7", "203.0.113.7", "198.18.0.7"
DOUBLE = {"move": MoveSettings(duplicate=True)}


def calling(**options: Any) -> tuple[Fleet, str]:
    """A call that has talked for a while."""
    fleet = Fleet(inside=1, outside=1, **options)
    call_id = fleet.call("in1", "out1")
    fleet.world.run(5.0)
    return fleet, call_id


def slow_down(fleet: Fleet, number: int) -> None:
    """The second uplink has 400 ms one way, and its probes know."""
    fleet.uplinks[number].delay = 0.4
    fleet.world.run(60.0)
    assert fleet.world.run_until(lambda: len(fleet.nms_node.paths.on()) == len(fleet.uplinks))


def lost(fleet: Fleet, call_id: str, begin: float, end: float) -> tuple[int, int]:
    """Packets of the call that never came, up and down."""
    inner, outer = fleet.stream("in1", call_id), fleet.stream("out1", call_id)
    return outer.lost_between(begin, end, inner), inner.lost_between(begin, end, outer)


def sources(fleet: Fleet) -> list[str]:
    """Our addresses that media leaves by, as they come."""
    seen: list[str] = []

    def note(source: str, _target: str, _through: bool) -> None:
        if source in (FIRST, SECOND, THIRD) and source not in seen:
            seen.append(source)

    fleet.world.phones.seen = note
    return seen


def ended(fleet: Fleet) -> list[tuple[str, str]]:
    return [(row["ended"], row["reason"]) for wave in fleet.nms.command("moves") for row in wave["each"]]


def receives_at(fleet: Fleet) -> set[str]:
    """Our outer addresses at which packets for the call are taken in."""
    return {key.host for key, flow in fleet.nms.plane.flows.items() if flow.group == INSIDE}


def re_invites(fleet: Fleet, own: tuple[str, ...] = (FIRST, SECOND, THIRD)) -> list[Request]:
    """Every INVITE within a dialog that has left by an uplink, copies left out."""
    found: dict[str, Request] = {}
    for _, source, _, data in fleet.world.network.sent:
        if source[0] in own and data.startswith(b"INVITE "):
            request = parse(data)
            if isinstance(request, Request) and request.to_tag:
                found.setdefault(request.value("via"), request)
    return list(found.values())


@pytest.mark.req("RO-10", "R10", "R15")
@pytest.mark.parametrize("double", [False, True], ids=["plain", "doubled"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(0.025, 0.025, id="as fast"),
        pytest.param(0.300, 0.005, id="much faster"),
        pytest.param(0.005, 0.300, id="much slower"),
    ],
)
def test_a_drain_loses_no_packet_however_far_the_paths_are(old: float, new: float, double: bool) -> None:
    fleet, call_id = calling(nms=DOUBLE if double else {})
    for uplink, delay in zip(fleet.uplinks, (old, new), strict=True):
        uplink.delay = delay
    fleet.world.run(2.0)
    began = fleet.world.now
    fleet.operator(1, "off")
    fleet.world.run(8.0)
    assert lost(fleet, call_id, began - 0.5, began + 7.0) == (0, 0)
    assert ended(fleet) == [("verified", "")]
    arrivals = fleet.stream("out1", call_id).arrivals
    doubled = len(arrivals) - len({number for _, number, _ in arrivals})
    assert bool(doubled) == double
    assert not fleet.nms.plane.refused
    assert not len(fleet.nms_node.doubling)


@pytest.mark.req("RO-10")
def test_the_uplink_direction_stays_on_the_old_path_until_the_far_end_has_agreed() -> None:
    fleet, call_id = calling()
    slow_down(fleet, 1)
    seen = sources(fleet)
    fleet.operator(1, "off")
    fleet.world.run(0.5)  # the re-INVITE is under way
    assert fleet.uplink_of(call_id) == FIRST
    assert seen == [FIRST]
    fleet.world.run(2.0)
    assert fleet.uplink_of(call_id) == SECOND
    assert seen == [FIRST, SECOND]


@pytest.mark.req("R10")
@pytest.mark.parametrize("how", ["drain", "carrier", "silence"])
def test_the_old_path_is_let_go_when_nothing_comes_by_it_any_more(how: str) -> None:
    fleet, call_id = calling(uplinks=3)
    assert receives_at(fleet) == {FIRST, SECOND, THIRD}
    match how:
        case "drain":
            fleet.operator(1, "off")
        case "carrier":
            fleet.cut(0)
        case _:
            fleet.silence(0)
    fleet.world.run(1.0)
    assert fleet.uplink_of(call_id) == SECOND
    assert receives_at(fleet) == {FIRST, SECOND, THIRD}
    fleet.world.run(3.0)
    assert receives_at(fleet) == {SECOND, THIRD}
    seen = sources(fleet)
    fleet.world.run(1.0)
    assert seen == [SECOND]
    if how == "drain":
        fleet.operator(1, "auto")
    else:
        fleet.mend(0)
    fleet.world.run(10.0)
    assert receives_at(fleet) == {FIRST, SECOND, THIRD}, "ready for the next move"
    assert fleet.uplink_of(call_id) == SECOND  # R15
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R10")
def test_a_far_end_that_goes_on_sending_to_the_old_path_is_heard_there() -> None:
    fleet, call_id = calling()
    outer = fleet.stream("out1", call_id)
    stubborn = outer.peer
    fleet.operator(1, "off")
    for _ in range(50):
        fleet.world.run(0.1)
        outer.peer = stubborn
    began = fleet.world.now
    assert fleet.nms.command("paths")[0]["settling"] == 1
    fleet.world.run(0.05)
    outer.peer = stubborn
    assert fleet.stream("in1", call_id).received_between(began - 1.0, began) > 40


@pytest.mark.req("R10")
def test_an_operator_sees_when_a_drained_path_may_be_unplugged() -> None:
    fleet, _ = calling()
    fleet.operator(1, "off")
    fleet.world.run(0.5)
    (path,) = [row for row in fleet.nms.command("paths") if row["eface_id"] == 1]
    assert (path["sessions"], path["settling"]) == (0, 1)
    fleet.world.run(4.0)
    (path,) = [row for row in fleet.nms.command("paths") if row["eface_id"] == 1]
    assert (path["sessions"], path["settling"]) == (0, 0)


@pytest.mark.req("RO-10", "R2")
@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        pytest.param((488,), "refused", id="488"),
        pytest.param((0,) * 40, "no answer", id="silence"),
        pytest.param((500,) * 12, "refused", id="500 for ever"),
    ],
)
def test_a_planned_move_that_fails_leaves_the_call_on_the_old_path(answers: tuple[int, ...], reason: str) -> None:
    fleet, call_id = calling()
    fleet.refuse_moves("out1", *answers)
    began = fleet.world.now
    fleet.operator(1, "off")
    assert fleet.world.run_until(lambda: bool(ended(fleet)), within=200.0)
    assert ended(fleet) == [("failed", reason)]
    assert fleet.uplink_of(call_id) == FIRST
    fleet.world.run(40.0)
    assert lost(fleet, call_id, began, fleet.world.now - 1.0) == (0, 0)
    fleet.phones["out1"].node.refusals = []  # type: ignore[attr-defined]
    fleet.cut(0)  # now there is no choice
    fleet.world.run(3.0)
    assert fleet.uplink_of(call_id) == SECOND
    assert fleet.talking(call_id, "in1", "out1")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("RO-10", "MH-12")
@pytest.mark.parametrize("how", ["carrier", "address", "silence"])
def test_a_drained_path_that_dies_meanwhile_makes_the_move_urgent(how: str) -> None:
    fleet, call_id = calling()
    fleet.world.network.keep = True
    slow_down(fleet, 1)
    fleet.operator(1, "off")
    fleet.world.run(0.1)
    died = fleet.world.now
    match how:
        case "carrier":
            fleet.cut(0)
        case "address":
            fleet.readdress(0)
        case _:
            fleet.silence(0)
    assert how == "silence" or fleet.uplink_of(call_id) == SECOND, "before the far end has answered"
    fleet.world.run(5.0)
    assert fleet.talking(call_id, "in1", "out1")
    up, _ = lost(fleet, call_id, died, died + 4.0)
    assert up <= (15 if how == "silence" else 1)
    assert ended(fleet) == [("verified", "")]
    (wave,) = [wave for wave in fleet.nms.command("moves") if wave["calls"]]
    assert wave["invites"] == 1
    assert wave["gap_down_ms"]["worst"] > 0
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("MH-12", "R14")
def test_a_drain_whose_destination_dies_goes_elsewhere_at_once_and_loses_nothing() -> None:
    fleet, call_id = calling(uplinks=3)
    slow_down(fleet, 1)
    began = fleet.world.now
    fleet.operator(1, "off")
    fleet.world.run(0.1)
    fleet.cut(1)
    fleet.world.run(1.0)
    assert fleet.uplink_of(call_id) == THIRD
    fleet.world.run(4.0)
    assert lost(fleet, call_id, began - 0.5, began + 4.0) == (0, 0)


@pytest.mark.req("R18")
def test_draining_the_only_path_ends_no_call() -> None:
    fleet, call_id = calling(uplinks=1)
    fleet.operator(1, "off")
    fleet.world.run(60.0)
    assert fleet.talking(call_id, "in1", "out1")
    fleet.operator(1, "auto")
    fleet.world.run(10.0)
    assert fleet.talking(call_id, "in1", "out1")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R15")
def test_a_better_path_that_appears_moves_no_call() -> None:
    fleet = Fleet(inside=1, outside=1, uplinks=2)
    fleet.cut(0)
    fleet.world.run(1.0)
    call_id = fleet.call("in1", "out1")
    assert fleet.uplink_of(call_id) == SECOND
    fleet.world.network.keep = True
    fleet.mend(0)
    fleet.world.run(30.0)
    assert [path.address for path in fleet.nms_node.paths.on()] == [FIRST, SECOND]
    assert fleet.uplink_of(call_id) == SECOND
    assert re_invites(fleet) == []
    assert fleet.nms.notices("moved") == []


@pytest.mark.req("R1", "RO-8", "RO-10")
@pytest.mark.parametrize("transport", ["UDP", "TCP"])
@pytest.mark.parametrize("how", ["drain", "carrier", "silence", "address"])
def test_every_live_call_is_re_invited_once_with_new_via_contact_and_addresses(how: str, transport: str) -> None:
    fleet = Fleet(transport=transport)
    calls = [fleet.call("in1", "out1"), fleet.call("out2", "in2")]
    fleet.world.run(3.0)
    fleet.world.network.keep = True
    match how:
        case "drain":
            fleet.operator(1, "off")
        case "carrier":
            fleet.cut(0)
        case "silence":
            fleet.silence(0)
        case _:
            fleet.readdress(0)
    fleet.world.run(20.0)
    sent = re_invites(fleet)
    assert sorted(request.call_id for request in sent) == sorted(calls)
    for request in sent:
        assert SECOND in request.value("via")
        assert f"@{SECOND}" in request.value("contact") or f"sip:{SECOND}" in request.value("contact")
        assert f"c=IN IP4 {SECOND}" in request.body
        assert FIRST not in request.body.partition("s=")[2]
    assert [wave["ended"] for wave in fleet.nms.command("moves")] == [{"verified": 2}]
    for call_id, names in zip(calls, (("in1", "out1"), ("in2", "out2")), strict=True):
        assert fleet.talking(call_id, *names)


@pytest.mark.req("RO-10")
def test_from_the_first_late_probe_on_the_other_path_carries_a_copy() -> None:
    silences = []
    for move in (MoveSettings(), MoveSettings(duplicate=True)):
        fleet, call_id = calling(nms={"move": move})
        began = fleet.world.now
        fleet.silence(0)
        fleet.world.run(4.0)
        silences.append(fleet.stream("out1", call_id).longest_gap(began - 0.1, began + 3.0))
        assert fleet.talking(call_id, "in1", "out1")
        assert not len(fleet.nms_node.doubling)
        fleet.hang_up_everything()
        assert fleet.leaks() == []
    assert silences[1] < silences[0]


@pytest.mark.req("RO-10", "R15")
def test_a_late_probe_that_meant_nothing_ends_with_one_path_again() -> None:
    fleet, call_id = calling(nms=DOUBLE)
    fleet.silence(0)
    fleet.world.run(0.1)
    fleet.uplinks[0].silent = False
    fleet.world.run(5.0)
    assert fleet.uplink_of(call_id) == FIRST
    seen = sources(fleet)
    fleet.world.run(1.0)
    assert seen == [FIRST]
    assert fleet.nms.notices("moved") == []


@pytest.mark.req("RO-10", "MH-12")
def test_a_doubled_move_outlives_the_death_of_either_path() -> None:
    for victim in (0, 1):
        fleet, call_id = calling(nms=DOUBLE, uplinks=3)
        fleet.operator(1, "off")
        fleet.world.run(0.5)
        began = fleet.world.now
        fleet.silence(victim)
        fleet.world.run(4.0)
        up, _ = lost(fleet, call_id, began, began + 3.0)
        assert up == 0, f"uplink {victim} died"
        assert fleet.talking(call_id, "in1", "out1")
        fleet.hang_up_everything()
        assert fleet.leaks() == []
        assert not len(fleet.nms_node.doubling)
        assert not len(fleet.nms_node.settling)


@pytest.mark.req("R10")
def test_a_call_that_begins_under_suspicion_is_not_drawn_to_the_copys_path() -> None:
    """A far end that sends to where the first packet comes from must not learn a path that nobody watches for it."""
    fleet = Fleet(inside=1, outside=1, nms=DOUBLE)
    fleet.world.phones.comedia.add("out1")
    fleet.call("in1", "out1")  # a path without calls is not suspected
    fleet.uplinks[0].delay = 0.06  # the copies, by the other one, come first
    nms = fleet.nms_node
    path = next(path for path in nms.paths.all if path.address == FIRST)

    def late() -> None:
        nms.doubling.suspect(path, fleet.world.now)  # as a late probe would
        fleet.nms.handle(Tick())

    late()
    assert fleet.nms.plane.paths[path.group].also is not None
    call_id = fleet.dial("in1", "out1")

    def again() -> bool:
        late()
        return fleet.up("in1", call_id) and fleet.stream("out1", call_id).latched

    assert fleet.world.run_until(again, 6.0)
    assert fleet.uplink_of(call_id) == FIRST
    peer = fleet.stream("out1", call_id).peer
    assert peer is not None
    assert peer[0] == FIRST
    assert fleet.world.run_until(lambda: fleet.nms.plane.paths[path.group].also is None, 30.0)
    assert fleet.uplink_of(call_id) == FIRST
    assert len(nms.doubling) == 0  # the calls of the path are all together again
    assert fleet.talking(call_id, "in1", "out1", span=2.0)
    fleet.hang_up_everything()
    assert fleet.leaks() == []
