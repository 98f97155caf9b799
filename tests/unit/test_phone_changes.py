"""A call changes while it lasts: hold, moved media, glare, session timers, and a far end that has forgotten it."""

from __future__ import annotations

from typing import Any

import pytest
from phones import FarEnd, Office, calls, nothing_left, sdp

from sim.wire import Station
from sipnemo.sip.message import Request, Response


def test_hold_silences_both_directions_and_resume_restores_them() -> None:
    office = Office()
    alice, bob = office.phone("alice"), office.phone("bob")
    call_id = office.call(alice, "sip:bob@10.0.0.2")
    office.command(alice, "hold", call_id=call_id)
    office.wire.run(span=1)
    (ours,), (theirs,) = office.media.of(alice), office.media.of(bob)
    assert ours is not None
    assert theirs is not None
    assert (ours.expect, theirs.expect) == (False, True)
    assert (ours.peer, theirs.peer) == (("10.0.0.2", 20002), None)
    office.command(alice, "resume", call_id=call_id)
    office.wire.run(span=1)
    (ours,), (theirs,) = office.media.of(alice), office.media.of(bob)
    assert ours is not None
    assert theirs is not None
    assert theirs.peer == ("10.0.0.1", 20000)
    assert ours.expect
    assert len(alice.events("held")) == len(alice.events("resumed")) == 1
    assert not bob.events("moved")


@pytest.mark.parametrize("seed", range(10))
def test_glare_ends_in_one_consistent_session(seed: int) -> None:
    office = Office(seed=seed)
    alice, bob = office.phone(f"alice{seed}"), office.phone("bob")
    call_id = office.call(alice, "sip:bob@10.0.0.2")
    office.command(alice, "hold", call_id=call_id)
    office.command(bob, "hold", call_id=call_id)  # crosses alice's
    office.wire.run(span=20)
    assert any("491" in text[:12] for text in office.wire.texts("SIP/2.0"))
    assert len(alice.events("held")) == len(bob.events("held")) == 1
    for phone in (alice, bob):
        (known,) = office.media.of(phone)
        assert known is not None
        assert (known.peer, known.expect) == (None, False)


def far_call(office: Office, **settings: Any) -> tuple[Station, FarEnd, str, Response]:
    """A phone at 10.0.0.1 in a call from a scripted far end; and our tag, and our 200."""
    phone = office.phone("alice", **settings)
    far = FarEnd("10.0.0.9", office.wire)
    far.request("INVITE", "sip:alice@10.0.0.1", body=sdp())
    ok = far.responses("INVITE")[-1]
    far.request("ACK", "sip:alice@10.0.0.1", to_tag=ok.to_tag)
    return phone, far, ok.to_tag, ok


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_media_follow_a_moved_far_end_at_once(method: str) -> None:
    office = Office()
    alice, far, tag, first = far_call(office)
    far.request(method, "sip:alice@10.0.0.1", cseq=2, to_tag=tag, body=sdp("10.0.9.9", 5000, version=2))
    answer = far.responses(method)[-1]
    (known,) = office.media.of(alice)
    assert known is not None
    assert known.peer == ("10.0.9.9", 5000)
    assert [(e["media"], e["before"]) for e in alice.events("moved")] == [("10.0.9.9:5000", "10.0.0.9:4000")]
    assert answer.status == 200
    # Nothing of ours has changed, so the version stays (RFC 3264 §8).
    assert answer.body.splitlines()[1] == first.body.splitlines()[1]


def test_the_version_rises_when_the_answer_differs() -> None:
    office = Office()
    _, far, tag, first = far_call(office)
    far.request("INVITE", "sip:alice@10.0.0.1", cseq=2, to_tag=tag, body=sdp(direction="sendonly", version=2))
    second = far.responses("INVITE")[-1]
    far.request("ACK", "sip:alice@10.0.0.1", cseq=2, to_tag=tag)
    versions = [int(answer.body.splitlines()[1].split()[2]) for answer in (first, second)]
    assert versions[1] == versions[0] + 1
    assert "a=recvonly" in second.body


def test_a_re_invite_without_offer_gets_ours_and_the_ack_answers() -> None:
    office = Office()
    alice, far, tag, _ = far_call(office)
    far.request("INVITE", "sip:alice@10.0.0.1", cseq=2, to_tag=tag)
    assert "m=audio" in far.responses("INVITE")[-1].body
    far.request("ACK", "sip:alice@10.0.0.1", cseq=2, to_tag=tag, body=sdp("10.0.9.9", 5002))
    assert alice.events("moved")[0]["media"] == "10.0.9.9:5002"


def test_a_refused_re_invite_leaves_the_session_as_it_was() -> None:
    office = Office()
    alice, far, tag, _ = far_call(office)
    far.request("INVITE", "sip:alice@10.0.0.1", cseq=2, to_tag=tag, body=sdp("10.0.9.9", 5000, codec=18))
    assert far.responses("INVITE")[-1].status == 488
    (known,) = office.media.of(alice)
    assert known is not None
    assert known.peer == ("10.0.0.9", 4000)
    assert calls(alice) == 1


def test_an_offer_of_an_unspecified_address_stops_our_packets() -> None:
    office = Office()
    alice, far, tag, _ = far_call(office)
    far.request("INVITE", "sip:alice@10.0.0.1", cseq=2, to_tag=tag, body=sdp("0.0.0.0", 4000, version=2))
    (known,) = office.media.of(alice)
    assert known is not None
    assert known.peer is None
    assert not alice.events("moved")


def test_a_far_end_that_moves_its_contact_gets_our_bye_there() -> None:
    office = Office()
    alice, far, tag, _ = far_call(office)
    elsewhere = FarEnd("10.0.0.8", office.wire)
    elsewhere.request("INVITE", "sip:alice@10.0.0.1", cseq=2, to_tag=tag, call_id="call-of-far", body=sdp("10.0.0.8"))
    elsewhere.request("ACK", "sip:alice@10.0.0.1", cseq=2, to_tag=tag, call_id="call-of-far")
    office.command(alice, "hangup")
    office.wire.run(span=0.1)
    assert elsewhere.requests("BYE")
    assert not far.requests("BYE")


def outgoing(office: Office, **settings: Any) -> tuple[Station, FarEnd, Request]:
    """A phone that has called a scripted far end, answered; and its INVITE."""
    far = FarEnd("10.0.0.9", office.wire)
    phone = office.phone("alice", **settings)
    office.call(phone, "sip:far@10.0.0.9", seconds=0.1)
    invite = far.requests("INVITE")[0]
    far.answer(invite, 200, body=sdp())
    return phone, far, invite


@pytest.mark.parametrize("status", [481, 408])
def test_a_far_end_that_has_forgotten_the_call_ends_it(status: int) -> None:
    office = Office()
    alice, far, _ = outgoing(office)
    office.command(alice, "hold")
    office.wire.run(span=0.1)
    far.answer(far.requests("INVITE")[-1], status)
    assert [(e["by"], e["failed"]) for e in alice.events("ended")] == [("failure", True)]


def test_a_re_invite_refused_for_the_moment_is_tried_again() -> None:
    office = Office()
    alice, far, _ = outgoing(office)
    office.command(alice, "hold")
    office.wire.run(span=0.1)
    far.answer(far.requests("INVITE")[-1], 500, "Retry-After: 2")
    office.wire.run(span=2.2)
    far.answer(far.requests("INVITE")[-1], 200, body=sdp(direction="recvonly"))
    assert alice.events("held")
    assert calls(alice) == 1


def test_a_second_fork_is_acknowledged_and_ended() -> None:
    office = Office()
    alice, far, invite = outgoing(office)
    far.answer(invite, 200, tag="fork", body=sdp(port=4444))
    office.wire.run(span=0.1)
    assert {ack.to_tag for ack in far.requests("ACK")} == {"far", "fork"}
    assert {bye.to_tag for bye in far.requests("BYE")} == {"fork"}
    assert calls(alice) == 1


def test_a_session_timer_is_refreshed_by_who_has_to() -> None:
    office = Office()
    alice = office.phone("alice", session_expires=90)
    bob = office.phone("bob")
    office.call(alice, "sip:bob@10.0.0.2", seconds=300)
    assert len(office.wire.texts("UPDATE")) == 6  # every 45 s
    assert (calls(alice), calls(bob)) == (1, 1)


def test_a_session_that_is_not_refreshed_ends() -> None:
    office = Office()
    alice, bob = office.phone("alice", session_expires=90), office.phone("bob")
    office.call(alice, "sip:bob@10.0.0.2")
    office.wire.drop = lambda _data: True
    office.wire.run(span=300)
    assert [e["reason"] for e in bob.events("ended")] == ["session timer expired"]
    assert [e["failed"] for e in alice.events("ended")] == [True]
    office.wire.run(span=100)
    assert nothing_left(alice)
    assert nothing_left(bob)


def test_too_small_a_session_interval_is_asked_for_again() -> None:
    office = Office()
    far = FarEnd("10.0.0.9", office.wire)
    alice = office.phone("alice", session_expires=90)
    office.call(alice, "sip:far@10.0.0.9", seconds=0.1)
    far.answer(far.requests("INVITE")[0], 422, "Min-SE: 200")
    again = far.requests("INVITE")[-1]
    assert (again.value("session-expires"), again.value("min-se")) == ("200", "200")


@pytest.mark.parametrize(
    ("method", "status"),
    [("OPTIONS", 200), ("INFO", 200), ("MESSAGE", 200), ("PRACK", 481), ("PUBLISH", 405), ("NOTIFY", 489)],
)
def test_other_requests_within_a_call_are_answered(method: str, status: int) -> None:
    office = Office()
    alice, far, tag, _ = far_call(office)
    far.request(method, "sip:alice@10.0.0.1", cseq=2, to_tag=tag)
    assert far.responses(method)[-1].status == status
    assert calls(alice) == 1


def test_a_request_out_of_order_is_refused() -> None:
    office = Office()
    _, far, tag, _ = far_call(office)
    far.request("INFO", "sip:alice@10.0.0.1", cseq=5, to_tag=tag)
    far.request("INFO", "sip:alice@10.0.0.1", cseq=4, to_tag=tag)
    assert [response.status for response in far.responses("INFO")] == [200, 500]


def test_a_redirected_call_goes_to_the_best_contact_first() -> None:
    office = Office()
    alice = office.phone("alice")
    bob = office.phone("bob")
    office.phone("carol", answer_after=-2.0)
    far = FarEnd("10.0.0.9", office.wire)
    office.call(alice, "sip:far@10.0.0.9", seconds=0.1)
    invite = far.requests("INVITE")[0]
    far.say(
        b"SIP/2.0 380 Alternative Service\r\n"
        + b"".join(
            f"{line}\r\n".encode()
            for name, line in zip(invite.names, invite.lines, strict=True)
            if name in ("via", "from", "call-id", "cseq")
        )
        + f"To: {invite.value('to')};tag=x\r\n".encode()
        + b"Contact: <sip:bob@10.0.0.2>;q=0.2, <sip:carol@10.0.0.3>;q=0.7\r\nContent-Length: 0\r\n\r\n",
        "10.0.0.1",
    )
    office.wire.run(span=2)
    assert [e["to"] for e in alice.events("redirected")] == ["sip:carol@10.0.0.3"]
    assert bob.events("answered")  # after carol was busy


def test_redirection_in_circles_ends() -> None:
    office = Office()
    alice = office.phone("alice")
    far = FarEnd("10.0.0.9", office.wire)
    office.call(alice, "sip:far@10.0.0.9", seconds=0.1)
    for number in range(20):
        invite = far.requests("INVITE")[-1]
        status = b"SIP/2.0 302 Moved Temporarily\r\n"
        kept = "".join(
            f"{line}\r\n"
            for name, line in zip(invite.names, invite.lines, strict=True)
            if name in ("via", "from", "call-id", "cseq")
        )
        rest = f"To: {invite.value('to')};tag=x\r\nContact: <sip:far{number}@10.0.0.9>\r\nContent-Length: 0\r\n\r\n"
        far.say(status + (kept + rest).encode(), "10.0.0.1")
    assert [e["failed"] for e in alice.events("ended")] == [True]
    assert len({invite.uri for invite in far.requests("INVITE")}) == 11
