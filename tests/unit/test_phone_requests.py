"""Requests from outside a call: what a phone takes, and what it refuses and how."""

from __future__ import annotations

import pytest
from phones import FarEnd, Office, calls, nothing_left, sdp

from sipnemo.roles.node import Environment
from sipnemo.roles.phone.node import Phone
from sipnemo.roles.phone.settings import MANUAL, Account, Settings
from sipnemo.sip.flow import Local

INSIDE = "sip:alice@10.0.0.1"


@pytest.mark.parametrize(
    ("method", "uri", "headers", "body", "status"),
    [
        pytest.param("OPTIONS", INSIDE, (), "", 200, id="a question"),
        pytest.param("MESSAGE", INSIDE, (), "", 200, id="a message"),
        pytest.param("BYE", INSIDE, (), "", 481, id="BYE of no call"),
        pytest.param("UPDATE", INSIDE, (), "", 481, id="UPDATE of no call"),
        pytest.param("NOTIFY", INSIDE, (), "", 481, id="NOTIFY of no subscription"),
        pytest.param("SUBSCRIBE", INSIDE, (), "", 489, id="no event package"),
        pytest.param("REFER", INSIDE, (), "", 403, id="REFER outside a call"),
        pytest.param("PUBLISH", INSIDE, (), "", 405, id="unknown method"),
        pytest.param("INVITE", INSIDE, ("Require: tdialog",), sdp(), 420, id="unknown extension"),
        pytest.param("INVITE", INSIDE, (), sdp(codec=18), 488, id="no codec in common"),
        pytest.param("INVITE", INSIDE, (), "v=0\r\nnonsense", 488, id="no description"),
        pytest.param("INVITE", INSIDE, ("Replaces: none;to-tag=a;from-tag=b",), sdp(), 481, id="replaces nothing"),
        pytest.param("INVITE", INSIDE, ("Session-Expires: 10",), sdp(), 422, id="session interval too small"),
    ],
)
def test_a_request_gets_the_answer_it_deserves(
    method: str, uri: str, headers: tuple[str, ...], body: str, status: int
) -> None:
    office = Office()
    alice = office.phone("alice")
    far = FarEnd("10.0.0.9", office.wire)
    far.request(method, uri, *headers, body=body)
    assert [response.status for response in far.responses(method)][:1] == [status]
    assert calls(alice) == 0


def test_a_body_that_is_no_description_is_refused_unless_it_may_be_ignored() -> None:
    office = Office()
    office.phone("alice")
    far = FarEnd("10.0.0.9", office.wire)
    for number, handling in enumerate(("required", "optional")):
        far.request(
            "INVITE",
            INSIDE,
            "Content-Type: text/plain",
            f"Content-Disposition: session;handling={handling}",
            "Content-Length: 2\r\n\r\nhi",
            call_id=f"call{number}",
        )
    assert [response.status for response in far.responses("INVITE")][:2] == [415, 200]


def test_the_same_invite_on_another_way_is_refused() -> None:
    office = Office()
    alice = office.phone("alice", answer_after=MANUAL)
    far = FarEnd("10.0.0.9", office.wire)
    far.request("INVITE", INSIDE, body=sdp())
    far.request("INVITE", INSIDE, body=sdp())  # another branch
    assert [response.status for response in far.responses("INVITE")] == [180, 482]
    assert calls(alice) == 1


def test_accounts_are_told_apart_by_the_user_part() -> None:
    office = Office()
    local = Local("UDP", "10.0.0.1", 5060)
    accounts = tuple(Account(name=name, domain="example.com") for name in ("alice", "bob"))
    phone = office.wire.add(
        Phone(Settings(accounts=accounts, locals=(local,), media=False), Environment(seed="two")), local
    )
    far = FarEnd("10.0.0.9", office.wire)
    for number, name in enumerate(("bob", "alice", "carol")):
        far.request("INVITE", f"sip:{name}@10.0.0.1", body=sdp(), call_id=f"call{number}")
    assert [event["account"] for event in phone.events("answered")] == ["bob", "alice"]
    assert [response.status for response in far.responses("INVITE")][:3] == [200, 200, 404]


def test_record_routes_come_back_in_the_answer_and_are_taken_by_later_requests() -> None:
    office = Office()
    alice = office.phone("alice")
    far = FarEnd("10.0.0.9", office.wire)
    proxy = FarEnd("10.0.0.8", office.wire)
    route = "<sip:10.0.0.8;lr>, <sip:p2.example;lr>"
    far.request("INVITE", INSIDE, f"Record-Route: {route}", body=sdp())
    ok = far.responses("INVITE")[-1]
    assert ok.value("record-route") == route
    far.request("ACK", INSIDE, to_tag=ok.to_tag)
    office.command(alice, "hangup")
    office.wire.run(span=0.1)
    bye = proxy.requests("BYE")[0]
    assert bye.values("route") == ["<sip:10.0.0.8;lr>", "<sip:p2.example;lr>"]
    assert bye.uri == "sip:far@10.0.0.9"


def test_an_outbound_proxy_gets_every_request_that_begins_something() -> None:
    office = Office()
    proxy = FarEnd("10.0.0.8", office.wire)
    alice = office.phone("alice", proxy="sip:10.0.0.8", server="sip:home.example", domain="home.example")
    office.call(alice, "sip:bob@home.example", seconds=0.1)
    assert [request.value("route") for request in proxy.requests("REGISTER")] == ["<sip:10.0.0.8;lr>"]
    invite = proxy.requests("INVITE")[0]
    assert (invite.uri, invite.value("from").partition(";")[0]) == ("sip:bob@home.example", "<sip:alice@home.example>")


def test_noise_leaves_nothing_behind() -> None:
    office = Office()
    alice = office.phone("alice")
    far = FarEnd("10.0.0.9", office.wire)
    for data in (b"", b"\r\n\r\n", b"\0" * 40, b"INVITE", b"SIP/2.0 200 OK\r\n\r\n", b"\x00\x01\x00\x00" + bytes(16)):
        far.say(data, "10.0.0.1")
    office.wire.run(span=100)
    assert nothing_left(alice)
