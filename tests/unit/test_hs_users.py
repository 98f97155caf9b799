"""The SIP-HS as the phones' own SIP server: contacts, digest, redirect, parallel forking."""

from __future__ import annotations

import pytest
from hs_world import TCP, Gateway, Home, Peer

from sipnemo.sip.message import Request, Response


@pytest.fixture
def home() -> Home:
    return Home()


def phone(home: Home, name: str, number: int = 1) -> Peer:
    """A phone of alice's or bob's."""
    peer = Peer(home, (f"192.0.2.{100 + number}", 5060), name=name, password=home.settings.users[name])
    assert peer.register(f"<sip:{name}@{peer.address[0]}>;q=0.{number}").status == 200
    peer.inbox.clear()
    return peer


@pytest.fixture
def caller(home: Home) -> Peer:
    return Peer(home, ("203.0.113.9", 5060))


def test_a_phone_is_rung_at_all_its_contacts(home: Home, caller: Peer) -> None:
    phones = [phone(home, "alice", 1), phone(home, "alice", 2)]
    caller.request("INVITE", "sip:alice@home.example")
    assert [peer.got("INVITE").uri for peer in phones] == ["sip:alice@192.0.2.101", "sip:alice@192.0.2.102"]
    assert not phones[0].got("INVITE").values("record-route")
    for number, peer in enumerate(phones):
        peer.answer(peer.got("INVITE"), 180, tag=str(number))
    phones[1].answer(phones[1].got("INVITE"), 200, tag="1")
    assert phones[0].starts == ["INVITE", "CANCEL"]
    phones[0].answer(phones[0].got("CANCEL"), 200)
    phones[0].answer(phones[0].got("INVITE"), 487, tag="0")
    home.run(100)
    assert caller.starts == ["100", "180", "180", "200"]
    assert home.clean


@pytest.mark.parametrize(
    ("answers", "best"),
    [
        pytest.param([486, 404], "486", id="the first of equals"),
        pytest.param([408, 486], "486", id="who is there says more"),
        pytest.param([480, 404], "404", id="rather than nobody"),
        pytest.param([486, 484], "484", id="what helps the caller"),
        pytest.param([500, 486], "486", id="the lower class"),
        pytest.param([302, 486], "302", id="redirection"),
        pytest.param([486, 603], "603", id="6xx decides"),
        pytest.param([503, 503], "500", id="503 is not passed"),
    ],
)
def test_the_best_answer_is_passed(home: Home, caller: Peer, answers: list[int], best: str) -> None:
    phones = [phone(home, "alice", number + 1) for number in range(len(answers))]
    caller.request("INVITE", "sip:alice@home.example")
    for peer, status in zip(phones, answers, strict=True):
        assert caller.starts == ["100"]
        peer.answer(peer.got("INVITE"), status)
    assert caller.starts == ["100", best]


def test_6xx_ends_the_search(home: Home, caller: Peer) -> None:
    one, two = phone(home, "alice", 1), phone(home, "alice", 2)
    caller.request("INVITE", "sip:alice@home.example")
    two.answer(two.got("INVITE"), 180)
    one.answer(one.got("INVITE"), 603)
    assert two.starts == ["INVITE", "CANCEL"]
    two.answer(two.got("INVITE"), 487)
    assert caller.starts == ["100", "180", "603"]


def test_challenges_of_all_branches_are_gathered(home: Home, caller: Peer) -> None:
    phones = [phone(home, "alice", 1), phone(home, "alice", 2)]
    caller.request("MESSAGE", "sip:alice@home.example")
    for number, peer in enumerate(phones):
        peer.answer(peer.got("MESSAGE"), 401, f'WWW-Authenticate: Digest realm="r{number}", nonce="n"')
    last = caller.inbox[-1]
    assert isinstance(last, Response)
    assert last.status == 401
    assert len(last.values_raw("www-authenticate")) == 2


def test_cancel_ends_every_branch(home: Home, caller: Peer) -> None:
    phones = [phone(home, "alice", 1), phone(home, "alice", 2)]
    branch = caller.request("INVITE", "sip:alice@home.example")
    for peer in phones:
        peer.answer(peer.got("INVITE"), 180)
    caller.request("CANCEL", "sip:alice@home.example", branch=branch, cseq=caller.cseq)
    for peer in phones:
        peer.answer(peer.got("CANCEL"), 200)
        peer.answer(peer.got("INVITE"), 487)
    assert caller.starts == ["100", "180", "180", "200", "487"]


@pytest.mark.req("RO-4", "MH-11")
def test_a_phone_behind_a_gateway_is_found_through_the_gateways_binding(home: Home, caller: Peer) -> None:
    gateway = Gateway(home)
    uri = gateway.register()
    through = gateway.paths[0]
    alice = Peer(home, ("192.0.2.101", 5060), name="alice", password="wonder")
    assert alice.register(f"<{uri};mn=t1>", f"<{uri};mn=t2>").status == 200
    through.inbox.clear()
    caller.request("INVITE", "sip:alice@home.example")
    invites = [item for item in through.inbox if isinstance(item, Request)]
    assert [invite.uri for invite in invites] == [f"{uri};mn=t1", f"{uri};mn=t2"]
    assert [invite.values("record-route") for invite in invites] == [[f"<{uri};lr>"]] * 2
    assert invites[0].branch != invites[1].branch


@pytest.mark.req("MH-11")
def test_redirect_tells_the_caller_where_the_phone_is() -> None:
    home = Home(mode="redirect")
    gateway = Gateway(home)
    uri = gateway.register()
    alice = Peer(home, ("192.0.2.101", 5060), name="alice", password="wonder")
    assert alice.register(f"<{uri};mn=t1>;q=0.7", "<sip:alice@192.0.2.101>;q=0.5").status == 200
    caller = Peer(home, ("203.0.113.9", 5060))
    answer = caller.ask("INVITE", "sip:alice@home.example")
    assert answer.status == 302
    assert answer.values("contact") == [f"<{uri};mn=t1>;q=0.7", "<sip:alice@192.0.2.101>;q=0.5"]
    caller.request("ACK", "sip:alice@home.example", to=answer.value("to"), cseq=caller.cseq, branch=answer.branch)
    caller.request("INVITE", f"{uri};mn=t1")
    assert gateway.paths[0].got("INVITE").uri == f"{uri};mn=t1"
    assert caller.ask("INVITE", "sip:bob@home.example").status == 480


def test_a_user_proves_who_it_is_before_it_calls(home: Home) -> None:
    alice, bob = phone(home, "alice", 1), phone(home, "bob", 2)
    alice._auth.forget()
    alice.request("INVITE", "sip:bob@home.example")
    assert alice.starts == ["407"]
    assert bob.starts == []
    assert alice.ask("INVITE", "sip:bob@home.example").status == 100
    invite = bob.got("INVITE")
    assert not invite.values_raw("proxy-authorization")
    bob.answer(invite, 200)
    assert alice.starts[-1] == "200"


def test_a_user_may_call_anybody_and_nobody_else_may(home: Home) -> None:
    alice = phone(home, "alice")
    other = Peer(home, ("203.0.113.77", 5060))
    assert alice.ask("MESSAGE", "sip:bob@203.0.113.77", from_="<sip:bob@home.example>;tag=x").status == 403
    assert alice.ask("MESSAGE", "sip:bob@203.0.113.77", from_="<sip:a@else.example>;tag=x").status == 403
    alice.inbox.clear()
    answers = alice._auth.authorization("INVITE", "sip:bob@203.0.113.77", "", "c")
    alice.request("INVITE", "sip:bob@203.0.113.77", *(f"{name}: {value}" for name, value in answers))
    invite = other.got("INVITE")
    other.answer(invite, 200, "Contact: <sip:bob@203.0.113.77>")
    to = alice.inbox[-1].value("to")
    alice.request("ACK", "sip:bob@203.0.113.77", "Route: <sip:home.example;lr>", to=to, cseq=alice.cseq)
    assert other.starts == ["INVITE", "ACK"]
    alice.request("BYE", "sip:bob@203.0.113.77", "Route: <sip:home.example;lr>", to=to)
    assert other.starts == ["INVITE", "ACK", "BYE"]
    home.run(100)
    stranger = Peer(home, ("203.0.113.66", 5060))
    stranger.request("BYE", "sip:bob@203.0.113.77", to=to)
    assert stranger.starts == ["403"]


def test_the_domains_users_may_live_elsewhere() -> None:
    home = Home(users={})
    gateway = Gateway(home)
    uri = gateway.register()
    server = Peer(home, ("192.0.2.10", 5060))
    server.request("INVITE", uri, from_="<sip:dora@home.example>;tag=1")
    assert gateway.paths[0].starts[-1] == "INVITE"
    server.request("INVITE", uri, from_="<sip:fleet7@home.example>;tag=1")
    assert server.starts[-1] == "407"


def test_a_phone_behind_a_nat_is_reached_where_it_came_from(home: Home, caller: Peer) -> None:
    alice = Peer(home, ("203.0.113.5", 23456), name="alice", password="wonder")
    assert alice.register("<sip:alice@192.168.1.7:5060>").status == 200
    caller.request("OPTIONS", "sip:alice@home.example")
    assert alice.got("OPTIONS").uri == "sip:alice@192.168.1.7:5060"


def test_a_phone_behind_a_proxy_is_reached_by_its_contact(home: Home, caller: Peer) -> None:
    proxy = Peer(home, ("203.0.113.5", 5060), name="alice", password="wonder")
    alice = Peer(home, ("203.0.113.6", 5070))
    via = "Via: SIP/2.0/UDP 203.0.113.6:5070;branch=z9hG4bKx"
    assert proxy.register("<sip:alice@203.0.113.6:5070>", via=via).status == 200
    caller.request("OPTIONS", "sip:alice@home.example")
    assert alice.starts == ["OPTIONS"]


def test_an_outbound_phone_is_reached_by_its_flow(home: Home, caller: Peer) -> None:
    alice = Peer(home, ("203.0.113.5", 40000), local=TCP, name="alice", password="wonder")
    contact = '<sip:alice@192.168.1.7;transport=tcp>;reg-id=1;+sip.instance="<urn:uuid:a>"'
    answer = alice.register(contact, lines=["Supported: path, outbound"])
    assert answer.value("require") == "outbound"
    again = Peer(home, ("203.0.113.5", 40001), local=TCP, name="alice", password="wonder")
    assert len(again.register(contact, lines=["Supported: path, outbound"]).values("contact")) == 1
    caller.request("OPTIONS", "sip:alice@home.example")
    assert again.starts[-1] == "OPTIONS"


def test_the_same_contact_written_otherwise_is_the_same(home: Home) -> None:
    alice = phone(home, "alice")
    answer = alice.register("<sip:%61lice@192.0.2.101>")
    assert len(answer.values("contact")) == 1
    assert not alice.register("<sip:alice@192.0.2.101>;expires=0").values("contact")
    assert home.rows == {}


def test_users_registered_at_each_other_end_nowhere(home: Home, caller: Peer) -> None:
    for name, password, other in (("alice", "wonder", "bob"), ("bob", "builder", "alice")):
        peer = Peer(home, ("192.0.2.101", 5060), name=name, password=password)
        assert peer.register(f"<sip:{other}@home.example>").status == 200
    assert caller.ask("INVITE", "sip:alice@home.example").status == 480


def test_a_large_request_goes_by_a_stream(home: Home, caller: Peer) -> None:
    phone(home, "alice")
    alice = Peer(home, ("192.0.2.101", 5060), local=TCP)
    caller.request("MESSAGE", "sip:alice@home.example", body="x" * 1400)
    assert alice.starts == ["MESSAGE"]


@pytest.mark.parametrize(
    ("breadth", "answer", "passed"),
    [
        pytest.param("", "180", "30", id="sixty when nothing is said"),
        pytest.param("Max-Breadth: 5", "180", "2", id="shared among the branches"),
        pytest.param("Max-Breadth: 1", "440", "", id="not enough for both"),
        pytest.param("Max-Breadth: many", "400", "", id="malformed"),
    ],
)
def test_a_fork_has_bounded_breadth(home: Home, caller: Peer, breadth: str, answer: str, passed: str) -> None:
    """RFC 5393 §5."""
    phones = [phone(home, "alice", 1), phone(home, "alice", 2)]
    caller.request("INVITE", "sip:alice@home.example", *([breadth] if breadth else []))
    for peer in phones:
        if passed:
            assert peer.got("INVITE").value("max-breadth") == passed
            peer.answer(peer.got("INVITE"), 180)
        else:
            assert not peer.inbox
    assert answer in caller.starts
