"""Session timers while calls move (RFC 4028, R18): nobody is refreshed too late because of a move."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.fleet import Fleet
from sipnemo.roles.phone.node import Phone
from sipnemo.roles.phone.session_timer import MIN_SE

pytestmark = pytest.mark.req("R18")


def fleet_with_timers(inside: int, outside: int, **options: object) -> Fleet:
    """A phone inside and one outside, each of which asks for this interval in its own calls."""
    fleet = Fleet(inside=1, outside=1, rtp_every=0.5, settle=0.5, **options)  # type: ignore[arg-type]
    for name, interval in (("in1", inside), ("out1", outside)):
        fleet.phones[name].kill()
        fleet.phones[name].restart()
        node = fleet.phones[name].node
        assert isinstance(node, Phone)
        node.settings = replace(node.settings, session_expires=interval)
    fleet.world.run(2.0)
    return fleet


def move(fleet: Fleet) -> None:
    """The path in use is drained, and comes back."""
    first = fleet.nms_node.paths.all[0]
    fleet.operator(1, "off" if first.wanted else "auto")
    if first.wanted:
        fleet.operator(2, "off")
        fleet.world.run(1.0)
        fleet.operator(2, "auto")


CALLS = [pytest.param("in1", "out1", id="the phone refreshes"), pytest.param("out1", "in1", id="the far end refreshes")]


@pytest.mark.parametrize(("caller", "callee"), CALLS)
@pytest.mark.parametrize("every", [7.0, 31.0, 44.0, 50.0])
def test_a_call_that_moves_again_and_again_is_refreshed_in_time(caller: str, callee: str, every: float) -> None:
    fleet = fleet_with_timers(MIN_SE, MIN_SE)
    call_id = fleet.call(caller, callee)
    for _ in range(int(300 / every)):
        fleet.world.run(every)
        move(fleet)
        assert fleet.up("in1", call_id), fleet.story(call_id)
        assert fleet.up("out1", call_id), fleet.story(call_id)
    fleet.world.run(200.0)
    assert fleet.up("in1", call_id)
    assert fleet.up("out1", call_id)
    fleet.hang_up_everything()
    assert fleet.leaks() == []
    fleet.world.run(10.0)
    assert len(fleet.nms_node.session_timers) == 0


@pytest.mark.parametrize(("caller", "callee"), CALLS)
def test_the_role_of_the_refresher_is_the_same_after_a_move(caller: str, callee: str) -> None:
    fleet = fleet_with_timers(1800, 1800)
    fleet.call(caller, callee)
    (session,) = fleet.nms_node.calls.open
    before = session.expires
    assert before == f"1800;refresher={'uac' if caller == 'in1' else 'uas'}"
    fleet.world.network.keep = True
    move(fleet)
    fleet.world.run(2.0)
    invites = [data.decode() for *_, data in fleet.world.network.sent if data.startswith(b"INVITE")]
    assert invites
    assert all(f"Session-Expires: {before}\r\n" in text and "Min-SE: 1800\r\n" in text for text in invites)
    assert session.expires == before


def test_a_phone_is_refreshed_only_when_a_move_has_put_off_its_far_ends_refresh() -> None:
    fleet = fleet_with_timers(MIN_SE, MIN_SE)
    call_id = fleet.call("out1", "in1")
    fleet.world.run(300.0)
    assert ("session_refreshes", ()) not in fleet.nms.counts
    move(fleet)
    fleet.world.run(300.0)
    assert fleet.nms.counts["session_refreshes", ()] == 1
    assert fleet.up("in1", call_id)


@pytest.mark.parametrize(("caller", "callee"), CALLS)
def test_the_ends_find_out_by_themselves_that_the_other_has_vanished(caller: str, callee: str) -> None:
    """The gateway refreshes for nobody who does not: a phone without its far end ends the call."""
    fleet = fleet_with_timers(MIN_SE, MIN_SE)
    call_id = fleet.call(caller, callee)
    fleet.world.run(20.0)
    move(fleet)
    fleet.world.run(2.0)
    fleet.phones["out1"].kill()
    fleet.world.run(4 * MIN_SE)
    assert fleet.ended("in1", call_id) is not None
    assert not fleet.nms_node.calls.open


@pytest.mark.parametrize(("caller", "callee"), CALLS)
def test_a_refresh_that_is_lost_with_its_path_goes_by_the_other(caller: str, callee: str) -> None:
    for late in range(0, 60, 10):
        fleet = fleet_with_timers(MIN_SE, MIN_SE)
        call_id = fleet.call(caller, callee)
        fleet.world.run(MIN_SE / 2 - 0.03)
        fleet.world.run(late / 1000)
        fleet.silence(0)
        fleet.world.run(2 * MIN_SE)
        assert fleet.up("in1", call_id), (late, fleet.story(call_id))
        assert fleet.up("out1", call_id), (late, fleet.story(call_id))


@pytest.mark.parametrize("interval", [(0, 0), (MIN_SE, 0), (0, MIN_SE)])
@pytest.mark.parametrize(("caller", "callee"), CALLS)
def test_where_only_one_side_or_none_wants_a_timer_calls_live_on(
    caller: str, callee: str, interval: tuple[int, int]
) -> None:
    fleet = fleet_with_timers(*interval)
    call_id = fleet.call(caller, callee)
    for _ in range(8):
        fleet.world.run(40.0)
        move(fleet)
    fleet.world.run(200.0)
    assert fleet.up("in1", call_id)
    assert fleet.up("out1", call_id)


@pytest.mark.parametrize(("caller", "callee"), CALLS)
def test_a_move_that_is_refused_with_422_is_tried_with_a_longer_interval(caller: str, callee: str) -> None:
    fleet = fleet_with_timers(MIN_SE, MIN_SE)
    call_id = fleet.call(caller, callee)
    phone = fleet.refuse_moves("out1", (422, "Min-SE: 300"))
    fleet.world.run(10.0)
    move(fleet)
    fleet.world.run(3.0)
    assert len(phone.refused) == 1
    (session,) = fleet.nms_node.calls.open
    assert session.expires.startswith("300;")
    assert session.path.eface.id == 2
    fleet.world.run(1200.0)
    assert fleet.up("in1", call_id), fleet.story(call_id)
    assert fleet.up("out1", call_id), fleet.story(call_id)


def test_a_far_end_that_wants_ever_longer_intervals_does_not_keep_the_call_moving() -> None:
    fleet = fleet_with_timers(MIN_SE, MIN_SE)
    call_id = fleet.call("in1", "out1")
    phone = fleet.refuse_moves("out1", *((422, f"Min-SE: {300 + n}") for n in range(50)))
    move(fleet)
    fleet.world.run(30.0)
    assert len(phone.refused) <= 8
    phone.refusals.clear()
    assert fleet.up("in1", call_id)


def test_a_422_to_the_first_invite_reaches_the_caller_and_its_second_try_the_callee() -> None:
    fleet = fleet_with_timers(MIN_SE, MIN_SE)
    for caller, callee in (("in1", "out1"), ("out1", "in1")):
        node = fleet.phones[callee].node
        original = node.on_request  # type: ignore[attr-defined]
        refused: list[object] = []

        def on_request(server, request, now, node=node, original=original, refused=refused):  # type: ignore[no-untyped-def]
            if request.method == "INVITE" and not request.to_tag and not refused:
                refused.append(request)
                node.respond(server, 422, now, headers=("Min-SE: 240",))
                return
            original(server, request, now)

        node.on_request = on_request  # type: ignore[attr-defined]
        call_id = fleet.call(caller, callee)
        (session,) = fleet.nms_node.calls.open
        assert session.expires.startswith("240;")
        fleet.hang_up(caller, call_id)
        fleet.world.run(2.0)
