"""A SIP-NMS loses a path: what was under way on it goes on over another, as the same transaction."""

from __future__ import annotations

import pytest
from hs_world import Gateway, Home, Peer

from sipnemo.sip.message import Request

ALICE = "sip:alice@home.example"


@pytest.fixture
def home() -> Home:
    return Home()


@pytest.fixture
def gateway(home: Home) -> Gateway:
    return Gateway(home)


@pytest.fixture
def uri(gateway: Gateway) -> str:
    uri = gateway.register()
    for path in gateway.paths:
        path.inbox.clear()
    return uri


@pytest.fixture
def caller(home: Home) -> Peer:
    return Peer(home, ("203.0.113.9", 5060))


def lose(gateway: Gateway) -> None:
    """The first path is gone, and the second says so."""
    one, two = gateway.paths
    one.dead = True
    answer = two.register(gateway.contact(2), gateway.contact(1, extra=";expires=0"), expires=600)
    assert answer.status == 200
    two.inbox = [item for item in two.inbox if isinstance(item, Request)]


@pytest.mark.req("R2", "R3")
def test_an_invite_that_was_lost_with_the_path_comes_again_over_the_next_as_the_same(
    home: Home, gateway: Gateway, uri: str, caller: Peer
) -> None:
    one, two = gateway.paths
    caller.request("INVITE", uri)
    lose(gateway)
    assert two.starts == ["INVITE"]
    assert two.got("INVITE").branch == one.got("INVITE").branch
    two.answer(two.got("INVITE"), 180)
    two.answer(two.got("INVITE"), 200)
    assert caller.starts == ["100", "180", "200"]
    home.run(60)
    assert home.clean


@pytest.mark.req("R2", "R3")
def test_what_rings_is_cancelled_over_the_path_that_is_left(
    home: Home, gateway: Gateway, uri: str, caller: Peer
) -> None:
    one, two = gateway.paths
    branch = caller.request("INVITE", uri)
    one.answer(one.got("INVITE"), 180)
    lose(gateway)
    two.answer(two.got("INVITE"), 180)  # the SIP-NMS repeats what it had said
    caller.request("CANCEL", uri, branch=branch, cseq=caller.cseq)
    assert two.got("CANCEL").branch == one.got("INVITE").branch
    two.answer(two.got("CANCEL"), 200)
    two.answer(two.got("INVITE"), 487)
    assert two.starts[-1] == "ACK"
    assert caller.starts == ["100", "180", "180", "200", "487"]
    home.run(60)
    assert home.clean


@pytest.mark.req("R2", "R3")
def test_a_cancel_that_was_lost_with_the_path_comes_again(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    one, two = gateway.paths
    branch = caller.request("INVITE", uri)
    one.answer(one.got("INVITE"), 180)
    one.dead = True
    caller.request("CANCEL", uri, branch=branch, cseq=caller.cseq)
    lose(gateway)
    assert two.starts == ["INVITE", "CANCEL"]


def called(home: Home, gateway: Gateway) -> Peer:
    """The phone of a user of this server, which the SIP-NMS calls over its first path."""
    phone = Peer(home, ("203.0.113.20", 5060), name="alice", password="wonder")
    phone.register("<sip:alice@203.0.113.20>", expires=600)
    gateway.paths[0].request("INVITE", ALICE, call_id="c1", from_="<sip:bob@else.example>;tag=b", branch="z9hG4bKcall")
    return phone


@pytest.mark.req("R2", "R3")
@pytest.mark.parametrize("status", [180, 486])
def test_what_was_answered_to_the_lost_path_is_answered_again_to_the_next(
    home: Home, gateway: Gateway, uri: str, status: int
) -> None:
    one, two = gateway.paths
    phone = called(home, gateway)
    one.dead = True
    phone.answer(phone.got("INVITE"), status)
    assert two.starts == []
    two.raw.clear()
    lose(gateway)
    assert any(raw.startswith(b"SIP/2.0 %d" % status) for raw in two.raw)


@pytest.mark.req("R2", "R3")
@pytest.mark.parametrize("method", ["INVITE", "CANCEL"])
def test_answers_follow_a_request_that_comes_again_by_another_path(
    home: Home, gateway: Gateway, uri: str, method: str
) -> None:
    one, two = gateway.paths
    phone = called(home, gateway)
    phone.answer(phone.got("INVITE"), 180)
    one.dead = True
    via = "Via: SIP/2.0/UDP {}:{};rport;branch=z9hG4bKcall;moved=1".format(*one.address)
    head = one.sent[-1].decode().split("\r\n")
    again = "\r\n".join((head[0].replace("INVITE", method), via, *head[2:])).replace(" INVITE\r\n", f" {method}\r\n")
    two.send(again)
    if method == "INVITE":
        assert two.starts == ["180"]
        assert phone.starts.count("INVITE") == 1, "it rings once"
        one.send(one.sent[-1])  # the first copy was slow: it turns nothing back
        phone.answer(phone.got("INVITE"), 200)
        assert two.starts == ["180", "180", "200"]
    else:
        phone.answer(phone.got("CANCEL"), 200)
        phone.answer(phone.got("INVITE"), 487)
        assert two.starts == ["200", "487"]


@pytest.mark.req("R3")
def test_who_is_not_registered_cannot_turn_answers_away(home: Home, gateway: Gateway, uri: str, caller: Peer) -> None:
    phone = called(home, gateway)
    caller.send(gateway.paths[0].sent[-1])
    phone.answer(phone.got("INVITE"), 180)
    assert caller.starts == []
    assert gateway.paths[0].starts[-1] == "180"
