"""A phone registers at a real SIP-HS, keeps its binding, comes back after trouble, and takes it away at the end."""

from __future__ import annotations

from typing import Any

import pytest
from phones import FarEnd, Office, calls, nothing_left

from sim.wire import Station
from sipnemo.roles.hs.node import HomeServer
from sipnemo.roles.hs.settings import HsSettings
from sipnemo.roles.node import Environment, Stop
from sipnemo.roles.phone.node import Phone
from sipnemo.sip.flow import Local

USERS = {"alice": "wonder", "bob": "builder"}
SERVER = "sip:10.0.9.1"


def home(office: Office, **settings: Any) -> Station:
    local = Local("UDP", "10.0.9.1", 5060)
    settings = {"domain": "10.0.9.1", "users": USERS, "min_expires": 60, **settings}
    return office.wire.add(HomeServer(HsSettings(listen=(local,), **settings), Environment("home", 1.8e9)), local)


def member(office: Office, name: str, **settings: Any) -> Station:
    settings = {"password": USERS[name], **settings}
    return office.phone(name, server=SERVER, domain="10.0.9.1", **settings)


def test_a_phone_registers_with_digest_and_refreshes_in_time() -> None:
    office = Office()
    home(office)
    alice = member(office, "alice", expires=600)
    office.wire.run(span=2000)
    assert len(alice.events("registered")) == 1
    assert not alice.events("register-failed")
    registers = office.wire.texts("REGISTER")
    assert 5 <= len(registers) <= 9
    assert sum("401" in text[:12] for text in office.wire.texts("SIP/2.0")) <= 4  # nonces are reused


@pytest.mark.parametrize("mode", ["proxy", "redirect"])
def test_registered_phones_call_each_other_by_way_of_the_server(mode: str) -> None:
    office = Office()
    home(office, mode=mode)
    alice, bob = member(office, "alice"), member(office, "bob")
    office.wire.run(span=1)
    office.call(alice, "sip:bob@10.0.9.1")
    assert alice.events("answered")
    assert bool(alice.events("redirected")) is (mode == "redirect")
    assert (calls(alice), calls(bob)) == (1, 1)
    office.command(bob, "hangup")
    office.wire.run(span=1)
    assert (calls(alice), calls(bob)) == (0, 0)
    assert not any(event["failed"] for phone in (alice, bob) for event in phone.events("ended"))


def test_too_short_an_interval_is_asked_for_longer() -> None:
    office = Office()
    home(office)
    alice = member(office, "alice", expires=20)
    office.wire.run(span=1)
    assert [event["expires"] for event in alice.events("registered")] == [60]


def test_a_wrong_password_is_told_and_tried_again_ever_more_rarely() -> None:
    office = Office()
    home(office)
    alice = member(office, "alice", password="wrong")
    office.wire.run(span=300)
    failures = alice.events("register-failed")
    assert {event["reason"][:3] for event in failures} <= {"401", "403"}
    assert 6 <= len(failures) <= 20
    assert failures[-1]["retry_after"] >= 30


def test_registration_comes_back_by_itself_when_the_server_does() -> None:
    office = Office()
    home(office)
    office.wire.drop = lambda _data: office.wire.now < 1100.0
    alice = member(office, "alice")
    office.wire.run(until=1200.0)
    assert alice.events("register-failed")[0]["reason"] == "408 No Answer"
    assert alice.events("registered")


def test_requested_calls_wait_for_the_registration() -> None:
    office = Office()
    far = FarEnd("10.0.9.1", office.wire)
    member(office, "alice")
    office.wire.run(span=0.1)
    assert far.requests("REGISTER")
    assert not far.requests("INVITE")


def test_at_the_end_calls_are_hung_up_before_the_binding_is_removed() -> None:
    office = Office()
    server = home(office)
    alice, bob = member(office, "alice"), member(office, "bob")
    office.wire.run(span=1)
    office.call(alice, "sip:bob@10.0.9.1")
    for phone in (alice, bob):
        office.wire.feed(phone, Stop())
    office.wire.run(span=5)
    assert alice.finished
    assert bob.finished
    assert server.replies == {}
    leaving = [text for text in office.wire.texts("REGISTER") if "\r\nExpires: 0" in text]
    assert len(leaving) == 2
    # Who challenged the call need not be shown to the registrar; some crash on credentials of both kinds at once.
    assert any("Proxy-Authorization" in text for text in office.wire.texts("INVITE"))
    assert not any("Proxy-Authorization" in text for text in leaving)
    office.wire.run(span=100)
    for phone in (alice, bob):
        assert isinstance(phone.node, Phone)
        assert nothing_left(phone)


def test_without_a_server_to_talk_to_the_end_still_comes() -> None:
    office = Office()
    alice = office.phone("alice", server=SERVER)
    office.wire.run(span=1)
    office.wire.feed(alice, Stop())
    office.wire.run(span=0.0)
    assert alice.finished
