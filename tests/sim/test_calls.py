"""Calls through the gateway and its home: as drawn (Fig. 2), and everything that SIP allows besides."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sim.fleet import HOME, Fleet
from sipnemo.roles.nms.settings import MediaSettings, SessionSettings
from sipnemo.roles.phone.settings import BUSY, MANUAL, Account
from sipnemo.sip.message import Request, Response, uri_of
from sipnemo.sip.parser import parse

FIRST = "198.51.100.7"


def sent(fleet: Fleet, source: str, target: str = "") -> list[Request | Response]:
    """What went from one host to another, in order."""
    return [
        parse(data)
        for _, own, remote, data in fleet.world.network.sent
        if own[0] == source and (not target or remote[0] == target) and data[0] > 3
    ]


def requests(fleet: Fleet, method: str, source: str, target: str = "") -> list[Request]:
    return [m for m in sent(fleet, source, target) if isinstance(m, Request) and m.method == method]


def recorded(**options: Any) -> Fleet:
    fleet = Fleet(inside=options.pop("inside", 1), outside=options.pop("outside", 1), **options)
    fleet.world.network.keep = True
    return fleet


def ended_well(fleet: Fleet, span: float = 80.0) -> None:
    fleet.hang_up_everything()
    assert fleet.leaks(span) == []


@pytest.mark.req("RO-6", "RO-8", "RO-9", "MH-9", "MH-10")
def test_an_outgoing_call_is_translated_header_by_header() -> None:
    fleet = recorded()
    call_id = fleet.call("in1", "out1")
    inside = requests(fleet, "INVITE", "10.7.0.11")[-1]
    outside = requests(fleet, "INVITE", FIRST)[-1]
    assert outside.call_id == inside.call_id == call_id
    assert outside.from_tag == inside.from_tag
    assert outside.uri == inside.uri
    assert re.search(rf"<sip:{FIRST}:5060;mn=\w+>", outside.value("contact"))
    assert outside.value("via").startswith(f"SIP/2.0/UDP {FIRST}:5060")
    assert outside.value("record-route") == f"<{fleet.nms_node.home.uri};lr>"
    assert f"c=IN IP4 {FIRST}" in outside.body
    assert "10.7.0" not in outside.body + "".join(
        line for name, line in zip(outside.names, outside.lines, strict=True) if name != "user-agent"
    )
    (session,) = fleet.nms_node.calls.open
    assert session.path.eface.id == 1
    assert fleet.talking(call_id, "in1", "out1")
    ended_well(fleet)


@pytest.mark.req("RO-7")
@pytest.mark.parametrize("caller", ["in1", "out1"])
def test_the_record_route_names_the_gateways_uri_exactly_once(caller: str) -> None:
    fleet = recorded()
    callee = "out1" if caller == "in1" else "in1"
    fleet.call(caller, callee)
    ours = f"<{fleet.nms_node.home.uri};lr>"
    seen = [m for m in sent(fleet, HOME) if m.cseq_method == "INVITE" and m.value("record-route")]
    assert seen
    assert all(m.values("record-route").count(ours) == 1 for m in seen)
    ended_well(fleet)


@pytest.mark.req("MH-11")
def test_an_incoming_call_takes_the_best_priority() -> None:
    fleet = recorded(uplinks=3)
    call_id = fleet.call("out1", "in1")
    assert fleet.uplink_of(call_id) == FIRST
    assert len(requests(fleet, "INVITE", HOME)) == 1
    ended_well(fleet)


@pytest.mark.req("MH-11")
def test_when_the_best_path_does_not_answer_home_tries_the_next_priority() -> None:
    fleet = recorded()
    fleet.silence(0)  # the gateway has not found out: without calls it probes every two seconds
    call_id = fleet.call("out1", "in1", within=10.0)
    assert fleet.uplink_of(call_id) == "203.0.113.7"
    assert fleet.talking(call_id, "in1", "out1")
    ended_well(fleet)


@pytest.mark.req("MH-11")
def test_home_may_redirect_as_the_phones_own_server() -> None:
    fleet = recorded(hs={"mode": "redirect"})
    call_id = fleet.call("out1", "in1")
    assert any(isinstance(m, Response) and m.status == 302 for m in sent(fleet, HOME, "192.0.2.101"))
    assert fleet.talking(call_id, "in1", "out1")
    ended_well(fleet)


@pytest.mark.parametrize("caller", ["in1", "out1"])
@pytest.mark.parametrize("ender", ["caller", "callee"])
def test_either_side_ends_the_call(caller: str, ender: str) -> None:
    fleet = Fleet(inside=1, outside=1)
    callee = "out1" if caller == "in1" else "in1"
    call_id = fleet.call(caller, callee)
    fleet.hang_up(caller if ender == "caller" else callee)
    fleet.world.run(0.3)
    assert not fleet.up(caller, call_id)
    assert not fleet.up(callee, call_id)
    assert fleet.leaks() == []


@pytest.mark.parametrize("caller", ["in1", "out1"])
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        pytest.param({"answer_after": MANUAL}, "cancelled", id="cancelled while ringing"),
        pytest.param({"answer_after": BUSY}, "486 Busy Here", id="busy"),
    ],
)
def test_a_call_that_is_not_answered_leaves_nothing(caller: str, settings: dict[str, Any], reason: str) -> None:
    fleet = Fleet(inside=1, outside=1, phone=settings)
    callee = "out1" if caller == "in1" else "in1"
    call_id = fleet.dial(caller, callee)
    fleet.world.run(1.0)
    fleet.hang_up(caller)
    fleet.world.run(0.5)
    ended = fleet.ended(caller, call_id)
    assert ended is not None
    assert ended["reason"] == reason
    assert fleet.leaks() == []


@pytest.mark.parametrize("caller", ["in1", "out1"])
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"late_offer": True}, id="late offer"),
        pytest.param({"reliable": True, "answer_after": 0.5}, id="reliable ringing with PRACK"),
        pytest.param({"late_offer": True, "reliable": True, "answer_after": 0.5}, id="late offer and PRACK"),
        pytest.param({"rtcp_mux": False}, id="RTCP on a port of its own"),
        pytest.param({"session_expires": 90}, id="session timer"),
    ],
)
def test_every_way_to_set_a_call_up_gives_media_both_ways(caller: str, settings: dict[str, Any]) -> None:
    fleet = Fleet(inside=1, outside=1, phone=settings)
    call_id = fleet.call(caller, "out1" if caller == "in1" else "in1")
    assert fleet.talking(call_id, "in1", "out1")
    fleet.cut(0)
    fleet.world.run(1.0)
    assert fleet.talking(call_id, "in1", "out1")
    ended_well(fleet)


@pytest.mark.parametrize("caller", ["in1", "out1"])
@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_phones_inside_speak_udp_and_tcp(caller: str, transport: str) -> None:
    fleet = Fleet(inside=1, outside=1, transport=transport)
    call_id = fleet.call(caller, "out1" if caller == "in1" else "in1")
    (session,) = fleet.nms_node.calls.open
    assert session.inside.local.transport == transport
    assert fleet.talking(call_id, "in1", "out1")
    fleet.cut(0)
    fleet.world.run(1.0)
    assert fleet.talking(call_id, "in1", "out1")
    ended_well(fleet)


@pytest.mark.parametrize("holder", ["in1", "out1"])
def test_hold_stops_the_media_and_resume_brings_them_back(holder: str) -> None:
    fleet = Fleet(inside=1, outside=1)
    call_id = fleet.call("in1", "out1")
    fleet.phones[holder].command("hold", call_id=call_id)
    fleet.world.run(0.5)
    held = fleet.stream(holder, call_id)
    assert held.received_between(fleet.world.now - 0.2, fleet.world.now) == 0
    fleet.phones[holder].command("resume", call_id=call_id)
    fleet.world.run(0.5)
    assert fleet.talking(call_id, "in1", "out1")
    ended_well(fleet)


@pytest.mark.req("RO-10")
def test_a_held_call_moves_and_is_resumed_on_the_new_path() -> None:
    fleet = Fleet(inside=1, outside=1)
    call_id = fleet.call("in1", "out1")
    fleet.phones["out1"].command("hold", call_id=call_id)
    fleet.world.run(0.5)
    fleet.cut(0)
    fleet.world.run(4.0)
    fleet.phones["out1"].command("resume", call_id=call_id)
    fleet.world.run(0.5)
    assert fleet.talking(call_id, "in1", "out1")
    ended_well(fleet)


@pytest.mark.parametrize("referrer", ["in1", "out1"])
def test_a_transfer_passes_and_its_outcome_comes_back(referrer: str) -> None:
    fleet = Fleet(inside=1, outside=2)
    call_id = fleet.call("in1", "out1")
    referred = "out1" if referrer == "in1" else "in1"
    target = "out2"
    fleet.phones[referrer].command("refer", call_id=call_id, uri=f"sip:{target}@home.example")
    fleet.world.run(3.0)
    assert fleet.phones[referred].notices("referred")
    assert fleet.phones[target].notices("answered")
    assert any("200" in str(body.get("reason")) for body in fleet.phones[referrer].notices("transfer"))
    ended_well(fleet)


def test_two_answers_of_a_forked_call_leave_one_call() -> None:
    fleet = Fleet(inside=1, outside=1)
    fleet.add_phone("out1b", "192.0.2.150", "", accounts=(_account("out1"),))
    fleet.world.run(2.0)
    call_id = fleet.dial("in1", "out1")
    fleet.world.run(3.0)
    assert fleet.up("in1", call_id)
    assert fleet.up("out1", call_id) != fleet.up("out1b", call_id)
    assert len(fleet.nms_node.calls.open) == 1
    begin = fleet.world.now
    fleet.world.run(1.0)
    heard = [s.received_between(begin, begin + 1.0) for s in fleet.world.phones.all if s.call_id == call_id and s.open]
    assert len(heard) == 2
    assert min(heard) > 40
    ended_well(fleet, 120.0)


def test_two_phones_of_one_gateway_call_each_other() -> None:
    fleet = Fleet(inside=2, outside=0)
    call_id = fleet.call("in1", "in2")
    assert fleet.talking(call_id, "in1", "in2")
    fleet.hang_up("in1")
    fleet.world.run(0.5)
    assert not fleet.up("in2", call_id)
    assert fleet.leaks() == []


@pytest.mark.parametrize("caller", ["in1", "out1"])
def test_no_free_media_port_is_answered_with_503_and_costs_nothing(caller: str) -> None:
    ports = MediaSettings(ports=(20000, 20003), quarantine_after=1.0)
    fleet = Fleet(inside=1, outside=1, nms={"media": ports})
    callee = "out1" if caller == "in1" else "in1"
    fleet.call(caller, callee)
    fleet.call(caller, callee)
    third = fleet.dial(caller, callee)
    fleet.world.run(1.0)
    ended = fleet.ended(caller, third)
    assert ended is not None
    assert ended["failed"]
    assert fleet.nms_node.ports.used == 2
    fleet.hang_up_everything()
    fleet.world.run(2.0)
    fleet.call(caller, callee)
    ended_well(fleet)


@pytest.mark.parametrize("caller", ["in1", "out1"])
def test_one_call_too_many_is_answered_with_503(caller: str) -> None:
    fleet = Fleet(inside=1, outside=1, nms={"session": SessionSettings(calls=1)})
    callee = "out1" if caller == "in1" else "in1"
    first = fleet.call(caller, callee)
    second = fleet.dial(caller, callee)
    fleet.world.run(1.0)
    assert fleet.ended(caller, second) is not None
    assert fleet.up(caller, first)
    ended_well(fleet)


def test_a_call_without_any_uplink_is_refused_at_once() -> None:
    fleet = Fleet(inside=1, outside=1)
    fleet.cut(0)
    fleet.cut(1)
    call_id = fleet.dial("in1", "out1")
    fleet.world.run(0.1)
    ended = fleet.ended("in1", call_id)
    assert ended is not None
    assert ended["reason"].startswith("503")
    assert fleet.leaks() == []


def test_the_far_end_is_found_by_its_uri_and_nothing_else_of_the_inside_is_shown() -> None:
    fleet = recorded()
    fleet.call("in1", "out1")
    for message in sent(fleet, FIRST):
        assert "10.7.0." not in "\n".join(message.lines)
        assert uri_of(message.value("contact")).find("10.7.0.") < 0
    ended_well(fleet)


def _account(name: str) -> Account:
    return Account(name=name, domain="home.example", password=f"pw-{name}")
