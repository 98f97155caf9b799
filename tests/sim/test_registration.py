"""How gateway and phones become known (RO §2.2, §4 of the multihoming draft)."""

from __future__ import annotations

import re

import pytest

from sim.fleet import HOME, INSIDE, INSTANCE, Fleet
from sipnemo.roles.hs.bindings import TABLE
from sipnemo.roles.node import Received
from sipnemo.sip.flow import Flow, Local


def messages(fleet: Fleet, start: str) -> list[str]:
    return [data.decode("latin-1") for *_, data in fleet.world.network.sent if data.startswith(start.encode())]


@pytest.mark.req("RO-1", "RO-2", "MH-7", "MH-1")
def test_every_path_registers_with_a_priority_of_its_own_under_one_assigned_uri() -> None:
    fleet = Fleet(uplinks=3, inside=0, outside=0)
    (record,) = [record for record in fleet.hs_node.bindings if record.is_gateway]
    bindings = sorted(record.bindings.values(), key=lambda binding: -binding.q)
    assert [binding.reg_id for binding in bindings] == [1, 2, 3]
    assert len({binding.q for binding in bindings}) == 3
    assert {binding.instance for binding in bindings} == {INSTANCE}
    assert fleet.nms_node.home.uri == f"sip:{record.user}@home.example"


@pytest.mark.req("RO-2")
def test_the_assigned_uri_survives_kill_of_the_home_server_and_so_do_the_bindings() -> None:
    fleet = Fleet(inside=1, outside=1)
    uri, rows = fleet.nms_node.home.uri, dict(fleet.hs.rows[TABLE])
    fleet.hs.kill()
    fleet.world.run(1.0)
    fleet.hs.restart()
    assert fleet.hs.rows[TABLE] == rows
    fleet.call("out1", "in1")  # at once, before anybody registers again
    assert fleet.nms_node.home.uri == uri


@pytest.mark.req("RO-2")
@pytest.mark.parametrize("milliseconds", range(0, 150, 3))
def test_kill_of_the_home_server_at_any_moment_loses_no_confirmed_binding(milliseconds: int) -> None:
    fleet = Fleet(inside=1, outside=1, settle=0.0)
    confirmed: set[str] = set()
    network = fleet.world.network
    network.keep = True
    fleet.operator(1, "off")  # it registers anew, among others, while the phones do for the first time
    fleet.readdress(1, "203.0.113.99")
    fleet.world.run(milliseconds / 1000)
    fleet.hs.kill()
    for _, source, _, data in network.sent:
        if source[0] == HOME and data.startswith(b"SIP/2.0 200") and b"REGISTER" in data:
            confirmed.update(re.findall(r"Contact: <([^>]+)>", data.decode("latin-1")))
    fleet.hs.restart()
    kept = {b.contact for record in fleet.hs_node.bindings for b in record.bindings.values()}
    confirmed -= {"sip:203.0.113.7:5060"}  # taken back
    assert confirmed <= kept
    assert confirmed or milliseconds < 60


@pytest.mark.req("RO-3", "RO-4")
def test_a_phones_register_reaches_its_server_with_digest_and_a_contact_that_leads_here() -> None:
    fleet = Fleet(inside=1, outside=0, settle=0.0)
    fleet.world.network.keep = True
    fleet.world.run(3.0)
    registers = [
        text for text in messages(fleet, "REGISTER") if "in1" in text and f"Via: SIP/2.0/UDP {INSIDE}" not in text
    ]
    assert any("Digest" in text for text in registers)
    assert any(f"Contact: <{fleet.nms_node.home.uri};mn=" in text for text in registers)
    assert len(fleet.phones["in1"].notices("registered")) == 1
    answers = [text for text in messages(fleet, "SIP/2.0 200") if "REGISTER" in text and "in1@10.7.0.11" in text]
    assert answers, "the phone must see its own Contact in the answer"


@pytest.mark.req("RO-3")
def test_with_early_answers_the_phone_is_registered_before_its_server_knows() -> None:
    fleet = Fleet(inside=1, outside=0, nms={"register": "early"}, settle=0.01)
    assert fleet.phones["in1"].notices("registered")


@pytest.mark.req("RO-4")
def test_two_phones_of_one_gateway_are_told_apart() -> None:
    fleet = Fleet(inside=2, outside=1)
    first, second = fleet.call("out1", "in1"), fleet.call("out1", "in2")
    assert fleet.up("in1", first)
    assert fleet.up("in2", second)
    assert not fleet.up("in1", second)


@pytest.mark.req("RO-5")
def test_a_contact_of_another_gateway_passes_untouched() -> None:
    fleet = Fleet(inside=1, outside=0)
    network = fleet.world.network
    network.keep = True
    foreign = "Contact: <sip:fleet9-x@elsewhere.example;mn=abc>;expires=60"
    text = (
        "REGISTER sip:home.example SIP/2.0\r\nVia: SIP/2.0/UDP 10.7.0.50:5060;branch=z9hG4bKforeign\r\n"
        "Max-Forwards: 70\r\nFrom: <sip:in1@home.example>;tag=1\r\nTo: <sip:in1@home.example>\r\nCall-ID: foreign\r\n"
        f"CSeq: 1 REGISTER\r\n{foreign}\r\nContent-Length: 0\r\n\r\n"
    )
    local = fleet.nms.host.sockets["UDP", INSIDE, 5060]
    fleet.nms.handle(Received(text.encode(), Flow(local, ("10.7.0.50", 5060))))
    fleet.world.run(0.2)
    assert any(foreign in sent for sent in messages(fleet, "REGISTER"))


@pytest.mark.req("MH-8")
def test_home_learns_of_a_dead_path_over_a_living_one_at_once_and_before_the_calls_move() -> None:
    fleet = Fleet(inside=1, outside=1)
    fleet.call("in1", "out1")
    fleet.world.network.keep = True
    fleet.cut(0)
    fleet.world.run(1.0)
    outside = [data for _, source, _, data in fleet.world.network.sent if source[0] == "203.0.113.7" and data[0] > 3]
    register = next(number for number, data in enumerate(outside) if data.startswith(b"REGISTER"))
    invite = next(number for number, data in enumerate(outside) if data.startswith(b"INVITE"))
    assert register < invite
    (record,) = [record for record in fleet.hs_node.bindings if record.is_gateway]
    assert [binding.reg_id for binding in record.bindings.values()] == [2]


@pytest.mark.req("R11", "MH-8")
def test_taking_the_old_address_back_never_removes_the_new_one() -> None:
    fleet = Fleet(inside=1, outside=1)
    fleet.uplinks[1].delay = 0.3  # by which the old address is taken back
    fleet.world.run(20.0)
    fleet.readdress(0, "198.51.100.99")
    fleet.world.run(3.0)
    (record,) = [record for record in fleet.hs_node.bindings if record.is_gateway]
    contacts = {binding.reg_id: binding.contact for binding in record.bindings.values()}
    assert contacts == {1: "sip:198.51.100.99:5060", 2: "sip:203.0.113.7:5060"}


@pytest.mark.req("R12")
def test_registration_comes_back_by_itself_after_the_home_server_was_away() -> None:
    fleet = Fleet(inside=1, outside=1, nms={})
    fleet.hs.kill()
    fleet.world.run(120.0)
    assert not fleet.nms_node.paths.on()
    fleet.hs.restart()
    assert fleet.world.run_until(lambda: len(fleet.nms_node.paths.on()) == 2, within=30.0)
    fleet.call("out1", "in1")


@pytest.mark.parametrize(
    ("station", "source"),
    [
        pytest.param("wwan", ("192.0.2.66", 5060), id="from a stranger outside"),
        pytest.param("wwan", (HOME, 5060), id="from home, who knows better"),
    ],
)
def test_nobody_outside_registers_at_the_gateway(station: str, source: tuple[str, int]) -> None:
    fleet = Fleet(inside=1, outside=0)
    fleet.world.network.keep = True
    text = (
        "REGISTER sip:home.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66:5060;branch=z9hG4bKs\r\nMax-Forwards: 70\r\n"
        "From: <sip:in1@home.example>;tag=1\r\nTo: <sip:in1@home.example>\r\nCall-ID: s\r\nCSeq: 1 REGISTER\r\n"
        "Contact: <sip:in1@192.0.2.66>\r\nContent-Length: 0\r\n\r\n"
    )
    local: Local = fleet.nms_node.paths.all[0].locals["UDP"]
    fleet.nms.handle(Received(text.encode(), Flow(local, source)))
    assert messages(fleet, "SIP/2.0 403")


@pytest.mark.req("RO-2")
def test_strangers_reach_no_phone_but_through_home() -> None:
    fleet = Fleet(inside=1, outside=1)
    fleet.world.network.keep = True
    token = next(iter(fleet.nms_node.bindings.by_token))
    text = (
        f"INVITE sip:198.51.100.7;mn={token} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66:5060;branch=z9hG4bKs\r\n"
        "Max-Forwards: 70\r\nFrom: <sip:x@192.0.2.66>;tag=1\r\nTo: <sip:in1@home.example>\r\nCall-ID: s\r\n"
        "CSeq: 1 INVITE\r\nContact: <sip:x@192.0.2.66>\r\nContent-Length: 0\r\n\r\n"
    )
    local = fleet.nms_node.paths.all[0].locals["UDP"]
    fleet.nms.handle(Received(text.encode(), Flow(local, ("192.0.2.66", 5060))))
    fleet.world.run(0.1)
    assert messages(fleet, "SIP/2.0 403")
    assert not fleet.phones["in1"].notices("incoming")
