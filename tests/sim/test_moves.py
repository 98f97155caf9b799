"""A path is lost, or to be left: what every call and every packet does (RO-10, MH-12; Fig. 2 with two uplinks)."""

from __future__ import annotations

from typing import Any

import pytest

from sim.fleet import Fleet
from sipnemo.media.flow import MediaPath

RTT = 0.05
PACKET = 0.02
SECOND = "203.0.113.7"


def two_calls(**options: Any) -> tuple[Fleet, str, str]:
    fleet = Fleet(**options)
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(2.0)
    return fleet, out, into


ENDS = (("in1", "out1"), ("in2", "out2"))


@pytest.mark.req("RO-10", "MH-12", "MH-3", "R1", "R7")
def test_carrier_loss_costs_the_uplink_nothing_and_the_downlink_one_round_trip() -> None:
    fleet, out, into = two_calls()
    began = fleet.world.now
    fleet.cut(0)
    fleet.world.run(2.0)
    for call_id, (inner, outer) in zip((out, into), ENDS, strict=True):
        up, down = fleet.stream(outer, call_id), fleet.stream(inner, call_id)
        # What had left already was on its way over the dead link; what comes after leaves by the other.
        assert up.lost_between(began, began + 2.0 - 0.1, down) == 0
        assert up.longest_gap(began - 0.1, began + 1.9) <= 0.025 + 2 * PACKET
        assert down.longest_gap(began - 0.1, began + 1.9) <= RTT + 2 * PACKET
        assert fleet.uplink_of(call_id) == SECOND
    assert fleet.nms.plane.refused == {}


@pytest.mark.req("RO-10")
def test_the_uplink_direction_moves_with_one_write_before_any_answer() -> None:
    fleet, out, _ = two_calls()
    session = next(session for session in fleet.nms_node.calls.open if session.call_id == out)
    group = session.path.group
    writes = fleet.nms.plane.path_writes
    fleet.cut(0)
    assert fleet.nms.plane.path_writes == writes + 1
    assert fleet.world.path_of(fleet.nms, group) == MediaPath(
        fleet.nms_node.paths.on()[0].group, SECOND, "sat0"
    )._replace(group=group)


@pytest.mark.req("MH-3", "R2", "R13")
def test_a_silent_path_is_found_out_by_its_probes() -> None:
    fleet, out, into = two_calls()
    began = fleet.world.now
    fleet.silence(0)
    fleet.world.run(3.0)
    (moved,) = fleet.nms.notices("moved")
    assert moved["cause"] == "probe"
    assert moved["calls"] == 2
    for call_id, (inner, outer) in zip((out, into), ENDS, strict=True):
        assert fleet.stream(outer, call_id).longest_gap(began - 0.1, began + 2.9) <= 0.3 + 0.025 + 2 * PACKET
        assert fleet.stream(inner, call_id).longest_gap(began - 0.1, began + 2.9) <= 0.3 + RTT + 3 * PACKET


@pytest.mark.req("MH-2", "MH-12")
def test_roaming_the_old_address_is_gone_and_the_only_path_has_a_new_one() -> None:
    fleet, out, into = two_calls(uplinks=1)
    fleet.readdress(0, "198.51.100.99")
    assert fleet.world.run_until(lambda: fleet.talking(out, "in1", "out1", span=0.5), within=10.0)
    assert fleet.talking(into, "in2", "out2")
    assert fleet.uplink_of(out) == fleet.uplink_of(into) == "198.51.100.99"
    fleet.hang_up("out1")
    fleet.world.run(0.5)
    assert not fleet.up("in1", out)
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("MH-2", "MH-12")
def test_a_lost_address_moves_the_calls_to_the_other_uplink() -> None:
    fleet, out, into = two_calls()
    fleet.readdress(0)
    fleet.world.run(0.5)
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")


@pytest.mark.req("RO-10", "R15")
def test_a_drain_by_command_loses_no_packet() -> None:
    fleet, out, into = two_calls()
    began = fleet.world.now
    fleet.operator(1, "off")
    fleet.world.run(3.0)
    for call_id, (inner, outer) in zip((out, into), ENDS, strict=True):
        assert fleet.uplink_of(call_id) == SECOND
        for here, there in ((inner, outer), (outer, inner)):
            receiver, sender = fleet.stream(here, call_id), fleet.stream(there, call_id)
            assert receiver.lost_between(began - 0.5, began + 2.5, sender) == 0


@pytest.mark.req("R15", "MH-3")
def test_a_flapping_link_moves_no_call_back() -> None:
    fleet, out, _ = two_calls()
    fleet.cut(0)
    fleet.world.run(1.0)
    for _ in range(5):
        fleet.mend(0)
        fleet.world.run(1.0)
        fleet.cut(0)
        fleet.world.run(0.5)
    fleet.mend(0)
    fleet.world.run(20.0)
    assert fleet.uplink_of(out) == SECOND
    assert len(fleet.nms.notices("moved")) == 1
    later = fleet.call("in2", "out2")
    assert fleet.uplink_of(later) != SECOND  # the better path serves new calls again


@pytest.mark.req("R18")
def test_calls_outlive_the_loss_of_all_paths_until_one_is_back() -> None:
    fleet, out, into = two_calls()
    fleet.cut(0)
    fleet.cut(1)
    fleet.world.run(20.0)
    assert fleet.up("in1", out)
    fleet.mend(1)
    assert fleet.world.run_until(lambda: fleet.talking(out, "in1", "out1", span=0.5), within=15.0)
    assert fleet.talking(into, "in2", "out2")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R14", "MH-12")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_each_path_in_turn_may_die(order: tuple[int, ...]) -> None:
    fleet, out, into = two_calls(uplinks=3)
    for number in order[:2]:
        fleet.silence(number)
        fleet.world.run(4.0)
        assert fleet.talking(out, "in1", "out1")
        assert fleet.talking(into, "in2", "out2")
    fleet.mend(order[0])
    fleet.world.run(12.0)
    fleet.cut(order[2])
    fleet.world.run(2.0)
    assert fleet.talking(out, "in1", "out1")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("MH-12")
def test_the_second_path_fails_while_calls_move_to_it() -> None:
    fleet, out, into = two_calls(uplinks=3)
    fleet.cut(0)
    fleet.world.run(0.03)
    fleet.cut(1)
    fleet.world.run(6.0)
    assert fleet.uplink_of(out) == fleet.uplink_of(into) == "198.18.0.7"
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")


@pytest.mark.req("R6")
@pytest.mark.parametrize("name", ["in1", "out1"])
def test_a_hang_up_during_a_move_ends_the_call_at_both_ends(name: str) -> None:
    fleet, out, into = two_calls()
    fleet.cut(0)
    fleet.world.run(0.02)
    fleet.hang_up(name)
    assert fleet.world.run_until(lambda: not (fleet.up("in1", out) or fleet.up("out1", out)), within=5.0)
    assert fleet.talking(into, "in2", "out2")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R6")
@pytest.mark.parametrize("ender", [("in1", "in2"), ("out1", "out2")], ids=["phones end", "far ends end"])
@pytest.mark.parametrize("failure", ["carrier", "silence", "address", "drain"])
def test_after_a_move_every_call_is_ended_by_either_side(failure: str, ender: tuple[str, str]) -> None:
    fleet, out, into = two_calls()
    match failure:
        case "carrier":
            fleet.cut(0)
        case "silence":
            fleet.silence(0)
        case "address":
            fleet.readdress(0)
        case _:
            fleet.operator(1, "off")
    fleet.world.run(2.0)
    for name in ender:
        fleet.hang_up(name)
    fleet.world.run(0.5)
    assert not any(fleet.up(name, call_id) for names, call_id in zip(ENDS, (out, into), strict=True) for name in names)
    assert fleet.leaks() == []


@pytest.mark.req("R5", "R6")
@pytest.mark.parametrize("name", ["in1", "out1"])
def test_a_hold_during_a_move_is_done_all_the_same(name: str) -> None:
    fleet, out, _ = two_calls()
    fleet.cut(0)
    fleet.phones[name].command("hold", call_id=out)
    assert fleet.world.run_until(lambda: bool(fleet.phones[name].notices("held")), within=10.0)
    fleet.world.run(3.0)
    fleet.phones[name].command("resume", call_id=out)
    assert fleet.world.run_until(lambda: bool(fleet.phones[name].notices("resumed")), within=10.0)
    fleet.world.run(1.0)
    assert fleet.talking(out, "in1", "out1")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R2")
def test_a_request_in_flight_on_the_dead_path_is_sent_again_over_the_other() -> None:
    fleet, out, _ = two_calls()
    fleet.silence(0)  # nobody knows yet
    fleet.phones["in1"].command("hold", call_id=out)
    assert fleet.world.run_until(lambda: bool(fleet.phones["in1"].notices("held")), within=6.0)
    assert fleet.ended("in1", out) is None


@pytest.mark.req("R2", "RO-8")
def test_a_call_begun_on_a_path_that_dies_is_made_over_the_other_with_its_address() -> None:
    fleet = Fleet()
    fleet.silence(0)
    call_id = fleet.dial("in1", "out1")
    fleet.world.run(0.1)
    fleet.readdress(0)
    fleet.world.run(1.0)
    assert fleet.uplink_of(call_id) == SECOND
    assert fleet.talking(call_id, "in1", "out1")


@pytest.mark.req("R6", "MH-2")
def test_a_hang_up_while_the_only_uplink_roams_arrives_at_the_new_address() -> None:
    fleet, out, _ = two_calls(uplinks=1)
    fleet.readdress(0)
    fleet.world.run(1.0)
    fleet.hang_up("out1", out)
    fleet.world.run(1.0)
    fleet.readdress(0, "198.51.100.99")
    assert fleet.world.run_until(lambda: not fleet.up("in1", out), within=15.0)
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R2", "R6")
@pytest.mark.parametrize("method", ["BYE", "REFER"])
def test_a_request_that_a_move_overtakes_arrives_all_the_same(method: str) -> None:
    fleet, out, _ = two_calls()
    lost: list[bytes] = []

    def first_copies(data: bytes, source: tuple[str, int], _target: tuple[str, int]) -> bool:
        if data.startswith(method.encode()) and not source[0].startswith("10.") and len(lost) < 2:
            lost.append(data)
            return True
        return False

    fleet.world.network.drop = first_copies
    if method == "BYE":
        fleet.hang_up("in1", out)
    else:
        fleet.phones["in1"].command("refer", call_id=out, uri="sip:in2@home.example")
    fleet.world.run(0.1)
    fleet.operator(1, "off")
    fleet.world.run(5.0)
    if method == "BYE":
        assert not fleet.up("out1", out)
    else:
        assert fleet.phones["out1"].notices("referred")
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R17")
def test_live_calls_do_not_notice_that_home_restarts() -> None:
    fleet, out, into = two_calls()
    fleet.hs.kill()
    assert fleet.talking(out, "in1", "out1")
    fleet.hs.restart()
    fleet.world.run(1.0)
    fleet.cut(0)
    fleet.world.run(4.0)
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")


@pytest.mark.req("RO-10")
def test_two_phones_of_one_gateway_go_on_talking_when_its_path_dies() -> None:
    fleet = Fleet(outside=0)
    call_id = fleet.call("in1", "in2")
    fleet.world.run(1.0)
    fleet.cut(0)
    fleet.world.run(8.0)
    assert fleet.talking(call_id, "in1", "in2")
    fleet.hang_up("in2")
    fleet.world.run(1.0)
    assert not fleet.up("in1", call_id)
    assert fleet.leaks() == []
