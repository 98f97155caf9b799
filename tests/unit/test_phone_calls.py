"""Two phones call each other: set-up, answer, refusal, cancelling, transfer, and the end."""

from __future__ import annotations

import pytest
from phones import Office, calls, nothing_left

from sipnemo.roles.phone.settings import BUSY, MANUAL
from sipnemo.sip.message import Response
from sipnemo.sip.parser import parse


def test_a_call_is_answered_and_media_flow_both_ways() -> None:
    office = Office()
    alice, bob = office.phone("alice"), office.phone("bob")
    office.call(alice, "sip:bob@10.0.0.2")
    (to_bob,), (to_alice,) = office.media.of(alice), office.media.of(bob)
    assert to_bob is not None
    assert to_alice is not None
    assert (to_bob.peer, to_alice.peer) == (("10.0.0.2", 20002), ("10.0.0.1", 20000))
    assert to_bob.expect
    assert [event["media"] for event in alice.events("answered")] == ["10.0.0.2:20002"]
    office.command(bob, "hangup")
    office.wire.run()
    assert alice.events("ended")[0]["by"] == "them"
    assert not any(event["failed"] for phone in (alice, bob) for event in phone.events("ended"))
    assert not office.media.open
    assert nothing_left(alice)
    assert nothing_left(bob)


def test_a_phone_rings_for_as_long_as_it_was_told() -> None:
    office = Office(delay=0.0)
    alice, bob = office.phone("alice"), office.phone("bob", answer_after=2.5)
    began = office.wire.now
    office.call(alice, "sip:bob@10.0.0.2", seconds=5)
    assert len(alice.events("ringing")) == 1
    ((answered, _, _),) = [notice for notice in bob.notices if notice[1] == "answered"]
    assert answered == pytest.approx(began + 2.5, abs=0.01)


@pytest.mark.parametrize(
    ("wait", "command", "reason"),
    [
        pytest.param(BUSY, "", "486 Busy Here", id="busy by itself"),
        pytest.param(MANUAL, "hangup", "603 Decline", id="declined by command"),
        pytest.param(MANUAL, "busy", "486 Busy Here", id="busy by command"),
    ],
)
def test_a_refused_call_says_why_and_counts_as_failed(wait: float, command: str, reason: str) -> None:
    office = Office()
    alice, bob = office.phone("alice"), office.phone("bob", answer_after=wait)
    office.call(alice, "sip:bob@10.0.0.2")
    if command:
        office.command(bob, command)
    office.wire.run()
    (ended,) = alice.events("ended")
    assert (ended["reason"], ended["failed"]) == (reason, True)
    assert not bob.events("ended")[0]["failed"]
    assert nothing_left(alice)
    assert nothing_left(bob)


def test_an_answer_by_command() -> None:
    office = Office()
    alice, bob = office.phone("alice"), office.phone("bob", answer_after=MANUAL)
    office.call(alice, "sip:bob@10.0.0.2", seconds=20)
    assert not alice.events("answered")
    assert office.command(bob, "answer") == {}
    office.wire.run(span=1)
    assert alice.events("answered")
    assert "error" in office.command(bob, "answer")


def test_cancelling_a_ringing_call_ends_it_on_both_sides() -> None:
    office = Office()
    alice, bob = office.phone("alice"), office.phone("bob", answer_after=MANUAL)
    office.call(alice, "sip:bob@10.0.0.2")
    office.command(alice, "hangup")
    office.wire.run()
    assert [(e["reason"], e["by"], e["failed"]) for e in alice.events("ended")] == [("cancelled", "us", False)]
    assert [(e["reason"], e["by"], e["failed"]) for e in bob.events("ended")] == [("cancelled", "them", False)]
    assert nothing_left(alice)
    assert nothing_left(bob)


def test_a_cancel_waits_for_the_first_provisional_response() -> None:
    office = Office(delay=0.1)
    alice = office.phone("alice")
    office.phone("bob", answer_after=MANUAL)
    office.call(alice, "sip:bob@10.0.0.2", seconds=0.05)
    office.command(alice, "hangup")
    office.wire.run(span=0.1)
    assert not office.wire.texts("CANCEL")
    office.wire.run()
    assert len(office.wire.texts("CANCEL")) == 1
    assert alice.events("ended")[0]["reason"] == "cancelled"


def test_an_answer_that_crosses_the_cancel_is_ended_by_bye() -> None:
    office = Office(delay=0.1)
    alice, bob = office.phone("alice"), office.phone("bob", answer_after=0.25)
    office.call(alice, "sip:bob@10.0.0.2", seconds=0.3)
    office.command(alice, "hangup")  # on its way when bob answers
    office.wire.run()
    assert bob.events("answered")
    assert not alice.events("answered")
    assert office.wire.texts("BYE")
    assert nothing_left(alice)
    assert nothing_left(bob)


def test_a_call_that_nobody_answers_is_cancelled() -> None:
    office = Office()
    alice = office.phone("alice", ring_at_most=20.0)
    bob = office.phone("bob", answer_after=MANUAL)
    office.call(alice, "sip:bob@10.0.0.2", seconds=30)
    assert alice.events("ended")
    assert bob.events("ended")


def test_a_late_offer_is_answered_in_the_ack() -> None:
    office = Office()
    alice, bob = office.phone("alice", late_offer=True), office.phone("bob")
    office.call(alice, "sip:bob@10.0.0.2")
    invite, ack = office.wire.texts("INVITE")[0], office.wire.texts("ACK")[0]
    assert "v=0" not in invite
    assert "v=0" in ack
    assert all(known is not None and known.peer for phone in (alice, bob) for known in office.media.of(phone))


@pytest.mark.parametrize("late", [False, True])
def test_reliable_ringing_completes_offer_and_answer_before_the_200(late: bool) -> None:
    office = Office()
    alice, bob = office.phone("alice", late_offer=late), office.phone("bob", reliable=True, answer_after=1.0)
    office.call(alice, "sip:bob@10.0.0.2", seconds=0.5)
    assert len(office.wire.texts("PRACK")) == 1
    assert ("v=0" in office.wire.texts("PRACK")[0]) is late
    assert all(known is not None and known.peer for phone in (alice, bob) for known in office.media.of(phone))
    office.wire.run(span=2)
    assert alice.events("answered")
    assert not bob.events("moved")
    ok = [text for text in office.wire.texts("SIP/2.0 200") if "INVITE" in text.partition("CSeq:")[2][:12]]
    assert ok
    assert all("v=0" not in text for text in ok)
    office.command(alice, "hangup")
    office.wire.run()
    assert nothing_left(alice)
    assert nothing_left(bob)


def test_a_reliable_180_is_repeated_until_its_prack_comes() -> None:
    office = Office()
    alice = office.phone("alice")
    office.phone("bob", reliable=True, answer_after=1.0)
    office.wire.drop = lambda data: data.startswith(b"PRACK") and office.wire.now < 1003.0
    office.call(alice, "sip:bob@10.0.0.2", seconds=10)
    assert len(office.wire.texts("SIP/2.0 180")) == 4  # at 0, 0.5, 1.5 and 3.5 s; the fourth is under way already
    assert alice.events("answered")  # late, since no 2xx may overtake the PRACK


def test_the_200_is_repeated_until_the_ack_comes_and_the_ack_with_it() -> None:
    office = Office()
    alice, bob = office.phone("alice"), office.phone("bob")
    office.wire.drop = lambda data: data.startswith(b"ACK") and office.wire.now < 1002.0
    office.call(alice, "sip:bob@10.0.0.2", seconds=10)
    oks = office.wire.texts("SIP/2.0 200")
    assert len(oks) == 4
    assert len(office.wire.texts("ACK")) == 4
    assert len(set(office.wire.texts("ACK"))) == 1
    assert calls(bob) == 1


def test_without_an_ack_the_call_is_given_up() -> None:
    office = Office()
    alice, bob = office.phone("alice"), office.phone("bob")
    office.wire.drop = lambda data: data.startswith(b"ACK")
    office.call(alice, "sip:bob@10.0.0.2", seconds=40)
    assert [(e["reason"], e["failed"]) for e in bob.events("ended")] == [("no ACK", True)]
    assert alice.events("ended")[0]["by"] == "them"


def test_nobody_there_is_a_failure() -> None:
    office = Office()
    alice = office.phone("alice")
    office.call(alice, "sip:bob@10.0.0.77", seconds=40)
    assert [(e["reason"], e["failed"]) for e in alice.events("ended")] == [("408 No Answer", True)]
    assert nothing_left(alice)


def test_a_uri_that_cannot_be_reached_is_a_failure_at_once() -> None:
    office = Office()
    alice = office.phone("alice")
    office.call(alice, "tel:+4930123456")
    office.call(alice, "sip:bob@nowhere.example", seconds=5)
    assert all(event["failed"] for event in alice.events("ended"))
    assert len(alice.events("ended")) == 2
    assert not office.media.open


def test_calls_are_hung_up_after_their_duration() -> None:
    office = Office(delay=0.0)
    alice = office.phone("alice", duration=3.0)
    office.phone("bob")
    office.call(alice, "sip:bob@10.0.0.2", seconds=2.9)
    assert calls(alice) == 1
    office.wire.run(span=0.3)
    assert alice.events("ended")[0]["by"] == "us"


def test_refer_makes_the_far_end_call_and_ends_the_first_call() -> None:
    office = Office()
    alice, bob, carol = office.phone("alice"), office.phone("bob"), office.phone("carol")
    call_id = office.call(alice, "sip:bob@10.0.0.2")
    office.command(alice, "refer", call_id=call_id, uri="sip:carol@10.0.0.3")
    office.wire.run(span=5)
    assert [event["to"] for event in bob.events("referred")] == ["sip:carol@10.0.0.3"]
    assert carol.events("answered")
    assert [event["reason"] for event in alice.events("transfer")] == ["200 OK"]
    assert (calls(alice), calls(bob), calls(carol)) == (0, 1, 1)
    assert not any(event["failed"] for event in alice.events("ended"))
    assert "Referred-By: <sip:alice@10.0.0.1>" in office.wire.texts("INVITE sip:carol")[0]


def test_a_failed_transfer_leaves_the_first_call_alone() -> None:
    office = Office()
    alice, bob = office.phone("alice"), office.phone("bob")
    office.phone("carol", answer_after=BUSY)
    call_id = office.call(alice, "sip:bob@10.0.0.2")
    office.command(alice, "refer", call_id=call_id, uri="sip:carol@10.0.0.3")
    office.wire.run(span=5)
    assert [event["reason"] for event in alice.events("transfer")] == ["486 Busy Here"]
    assert (calls(alice), calls(bob)) == (1, 1)


def test_an_invite_with_replaces_takes_over_the_call() -> None:
    office = Office()
    alice, bob, carol = office.phone("alice"), office.phone("bob"), office.phone("carol")
    call_id = office.call(alice, "sip:bob@10.0.0.2")
    answer = next(text for text in office.wire.texts("SIP/2.0 200") if call_id in text)
    parsed = parse(answer.encode("latin-1"))
    assert isinstance(parsed, Response)
    tags = f"to-tag%3D{parsed.from_tag}%3Bfrom-tag%3D{parsed.to_tag}"
    # carol is told by bob, in the way of an attended transfer, to take alice's call over
    second = office.call(bob, "sip:carol@10.0.0.3")
    office.command(bob, "refer", call_id=second, uri=f"sip:alice@10.0.0.1?Replaces={call_id}%3B{tags}")
    office.wire.run(span=5)
    assert (calls(alice), calls(bob), calls(carol)) == (1, 0, 1)
    assert alice.events("answered")[-1]["peer"] == "sip:carol@10.0.0.3"
    assert not any(event["failed"] for phone in (alice, bob, carol) for event in phone.events("ended"))


@pytest.mark.parametrize("seed", range(20))
def test_under_loss_every_call_is_set_up_and_nothing_is_left(seed: int) -> None:
    office = Office(seed=seed, loss=0.2)
    alice = office.phone("alice", reliable=True)
    bob = office.phone("bob", reliable=seed % 2 == 0, answer_after=1.0)
    for _ in range(5):
        office.call(alice, "sip:bob@10.0.0.2", seconds=0.5)
    office.wire.run(span=25)
    assert len(alice.events("answered")) == len(bob.events("answered")) == 5
    office.command(alice, "hangup")
    office.wire.run(span=200)
    assert nothing_left(alice)
    assert nothing_left(bob)
    assert not office.media.open
