"""Requests of the two ends that meet a move: one consistent session, never two offers at once (RFC 3261 §14)."""

from __future__ import annotations

import pytest
from dialog_world import UP1, UP2, Talk, address, direction, sdp, version
from nms_world import FAR, INSIDE, PHONE

from sipnemo.roles.nms.settings import MoveSettings, ProbeSettings

pytestmark = pytest.mark.req("R5")


@pytest.fixture
def talk() -> Talk:
    return Talk()


# ------------------------------------------------------------------------------- an offer that is on the dying path


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_an_offer_of_the_phone_on_the_dying_path_is_the_move(talk: Talk, method: str) -> None:
    talk.mn(method, body=sdp("10.7.0.11", "sendonly", 2))
    first = talk.last(FAR, method)
    talk.cut()
    again = talk.last(FAR, method)
    assert again is not first
    assert again.cseq > first.cseq
    assert (talk.via(again), address(again), direction(again)) == (UP2, UP2, "sendonly")
    assert UP2 in again.value("contact")
    assert version(again) > version(first), "another description needs another version (RFC 3264 §8)"
    talk.cn_answers(200, method=method, body=sdp("192.0.2.9", "recvonly", 2))
    answer = talk.last(PHONE, "200")
    assert (answer.cseq, direction(answer)) == (2, "recvonly")
    if method == "INVITE":
        talk.mn("ACK", cseq=2)
    talk.to_cn()
    talk.hear()
    talk.gateway.run(5.0)
    assert talk.to_cn() == [], "no re-INVITE of ours is needed"
    assert talk.outcome == {"verified": 1}


def test_a_refused_offer_of_the_phone_is_followed_by_a_re_invite_of_ours(talk: Talk) -> None:
    """RFC 6141 §3.3: the session is as it was before, so it has still to move."""
    talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    talk.cut()
    talk.cn_answers(488)
    assert "488 2" in talk.to_mn()
    ours = talk.last(FAR, "INVITE")
    assert (talk.via(ours), address(ours), direction(ours)) == (UP2, UP2, "sendrecv")
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    talk.hear()
    assert talk.outcome == {"verified": 1}


@pytest.mark.parametrize(("status", "line"), [(491, "X: y"), (500, "Retry-After: 3")])
def test_a_far_end_still_busy_with_the_first_copy_is_asked_again(talk: Talk, status: int, line: str) -> None:
    talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    talk.cut()
    talk.cn_answers(status, line)
    assert f"{status} 2" not in talk.to_mn()
    talk.gateway.run(3.5)
    again = talk.last(FAR, "INVITE")
    assert again.cseq == 4
    assert direction(again) == "sendonly"
    talk.cn_answers(200, body=sdp("192.0.2.9", "recvonly"))
    assert "200 2" in talk.to_mn()


def test_a_phone_that_cancels_meanwhile_gets_487(talk: Talk) -> None:
    branch = talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    talk.cut()
    talk.cn_answers(491)
    talk.mn("CANCEL", cseq=2, branch=branch)
    talk.gateway.run(3.5)
    assert "487 2" in talk.to_mn()
    ours = talk.last(FAR, "INVITE")
    assert direction(ours) == "sendrecv", "the offer was taken back; the move is not"


def test_an_answer_of_the_phone_on_the_new_path_is_the_move(talk: Talk) -> None:
    talk.cn("INVITE", body=sdp("192.0.2.9", "sendonly", 2))
    talk.cut()
    talk.mn_answers(200, body=sdp("10.7.0.11", "recvonly", 2))
    answer = talk.last(FAR, "200")
    assert (talk.via(answer), address(answer), direction(answer)) == (UP2, UP2, "recvonly")
    talk.cn("ACK", at=UP2, cseq=101)
    talk.gateway.run(0.1)
    talk.hear()
    talk.gateway.run(5.0)
    assert not talk.gateway.got(FAR, "INVITE")[1:], "no re-INVITE of ours is needed"
    assert talk.outcome == {"verified": 1}


def test_an_answer_whose_ack_is_lost_is_acknowledged_by_us_once_the_far_end_obeys(talk: Talk) -> None:
    """Else the phone would end the call 32 s later (RFC 3261 §13.3.1.4)."""
    talk.cn("INVITE", body=sdp("192.0.2.9", "sendonly", 2))
    talk.mn_answers(200, body=sdp("10.7.0.11", "recvonly", 2))
    talk.cut()
    assert talk.to_cn() == ["200 101"], "no second INVITE before the ACK (§14.1)"
    talk.gateway.run(2.5)
    assert address(talk.last(FAR, "INVITE")) == UP2
    assert "ACK" not in "".join(talk.to_mn())
    talk.cn_answers(200, body=sdp("192.0.2.9", "sendonly", 3))
    assert any(text.startswith("ACK") for text in talk.to_mn())


def test_an_ack_lost_with_the_path_is_sent_again_before_the_re_invite(talk: Talk) -> None:
    """A far end that waits for an ACK may refuse every INVITE, and ends the call after 32 s."""
    talk.cut()
    assert talk.to_cn() == ["ACK 1", "INVITE 2"]


def test_an_old_call_needs_no_such_ack(talk: Talk) -> None:
    talk.gateway.run(40.0)
    talk.cut()
    assert talk.to_cn() == ["INVITE 2"]


# --------------------------------------------------------------------------------- what comes while we re-INVITE


@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_an_offer_of_the_phone_waits_for_the_answer_to_ours(talk: Talk, method: str) -> None:
    talk.cut()
    assert talk.to_cn() == ["ACK 1", "INVITE 2"]
    talk.mn(method, body=sdp("10.7.0.11", "sendonly", 2))
    assert talk.to_cn() == []
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    assert talk.to_cn() == ["ACK 2", f"{method} 3"]
    offer = talk.last(FAR, method)
    assert (address(offer), direction(offer)) == (UP2, "sendonly")


@pytest.mark.parametrize(
    ("status", "then"),
    [
        pytest.param(491, ["INVITE 3"], id="491: the phone's goes first"),
        pytest.param(500, ["INVITE 3"], id="500"),
        pytest.param(488, ["INVITE 3"], id="488"),
    ],
)
def test_an_offer_of_the_phone_goes_on_when_ours_is_refused_and_is_the_move(
    talk: Talk, status: int, then: list[str]
) -> None:
    talk.cut()
    talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    talk.to_cn()
    talk.cn_answers(status)
    assert [text for text in talk.to_cn() if "ACK" not in text] == then
    talk.gateway.run(10.0)
    talk.cn_answers(200, body=sdp("192.0.2.9", "recvonly"))
    talk.mn("ACK", cseq=2)
    talk.hear()
    talk.gateway.run(10.0)
    assert len(talk.gateway.got(FAR, "INVITE")) >= 3
    assert talk.session.move is None
    assert direction(talk.last(FAR, "INVITE")) == "sendonly"


@pytest.mark.parametrize(
    ("method", "body", "to_cn"),
    [
        pytest.param("INVITE", sdp("192.0.2.9", version=2), ["491 101"], id="re-INVITE"),
        pytest.param("INVITE", "", ["491 101"], id="re-INVITE without offer"),
        pytest.param("UPDATE", sdp("192.0.2.9", version=2), ["491 101"], id="UPDATE with an offer"),
        pytest.param("UPDATE", "", [], id="UPDATE without: it passes"),
        pytest.param("INFO", "", [], id="INFO: it passes"),
    ],
)
def test_what_the_far_end_sends_while_our_re_invite_is_at_hand(
    talk: Talk, method: str, body: str, to_cn: list[str]
) -> None:
    talk.cut()
    talk.to_cn()
    talk.cn(method, at=UP2, body=body)
    assert talk.to_cn() == to_cn
    assert talk.to_mn() == ([] if to_cn else [f"{method} 101"])


@pytest.mark.parametrize(("ours", "least", "most"), [(True, 2.1, 4.0), (False, 0.0, 2.0)], ids=["we called", "called"])
def test_after_491_who_made_the_call_id_waits_longer(ours: bool, least: float, most: float) -> None:
    """RFC 3261 §14.1."""
    talk = Talk()
    talk.session.outgoing = ours
    talk.cut()
    waits: list[float] = []
    for _ in range(4):
        count, refused_at = len(talk.gateway.got(FAR, "INVITE")), talk.gateway.now
        talk.cn_answers(491)
        while len(talk.gateway.got(FAR, "INVITE")) == count and talk.gateway.now < refused_at + 5.0:
            talk.gateway.run(0.01)
        waits.append(talk.gateway.now - refused_at)
    assert all(least <= wait <= most + 0.02 for wait in waits)
    assert len(set(waits)) > 1, "chosen at random"


@pytest.mark.parametrize(("line", "wait"), [("Retry-After: 3", 3.0), ("Retry-After: 2 (busy);duration=9", 2.0)])
def test_500_with_retry_after_is_obeyed(talk: Talk, line: str, wait: float) -> None:
    talk.cut()
    talk.cn_answers(500, line)
    talk.to_cn()
    talk.gateway.run(wait - 0.1)
    assert talk.to_cn() == []
    talk.gateway.run(0.2)
    assert talk.to_cn() == ["INVITE 3"]


def test_a_slow_far_end_gets_its_time_but_not_when_the_phone_waits(talk: Talk) -> None:
    """RFC 6141 §3.4: a re-INVITE is taken back by CANCEL, and everything is as before."""
    talk.cut()
    talk.cn_answers(183)
    talk.to_cn()
    talk.gateway.run(10.0)
    assert talk.to_cn() == []
    talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    talk.gateway.run(4.1)
    assert talk.to_cn() == ["CANCEL 2"]
    talk.cn_answers(487)
    assert talk.to_cn() == ["ACK 2", "INVITE 3"]
    assert direction(talk.last(FAR, "INVITE")) == "sendonly"


def test_a_200_that_crosses_our_cancel_counts(talk: Talk) -> None:
    """RFC 3261 §9.1."""
    talk.cut()
    talk.cn_answers(183)
    talk.gateway.run(17.0)
    assert "CANCEL 2" in talk.to_cn()
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    assert talk.to_cn() == ["ACK 2"]
    talk.hear()
    assert talk.outcome == {"verified": 1}


# ------------------------------------------------------------------------------------------------- paths and ends


def test_the_second_path_fails_while_the_first_move_is_under_way() -> None:
    talk = Talk(probe=ProbeSettings(hold_down=0.5))
    talk.cut()
    assert talk.via(talk.last(FAR, "INVITE")) == UP2
    talk.mend()
    before = talk.to_cn()
    talk.cut("sat0")
    assert talk.to_cn()[-1].startswith("INVITE")
    assert talk.via(talk.last(FAR, "INVITE")) == UP1
    acks = [message.cseq for message in talk.gateway.got(FAR, "ACK")]
    ours = [int(text.split()[1]) for text in before if text.startswith("INVITE")]
    assert set(ours) <= set(acks), "what it may have answered into the dead path is acknowledged"
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    talk.hear()
    assert talk.outcome == {"verified": 1}


@pytest.mark.parametrize("answer", [200, 481], ids=["first", "already answered"])
def test_bye_of_the_phone_during_a_move(talk: Talk, answer: int) -> None:
    talk.cut()
    talk.to_cn()
    talk.mn("BYE")
    bye = talk.last(FAR, "BYE")
    assert talk.via(bye) == UP2
    talk.cn_answers(487)
    assert talk.session.live, "the BYE decides"
    talk.cn_answers(answer, method="BYE")
    assert f"{answer} 2" in talk.to_mn()
    assert not talk.gateway.node.calls.open
    assert talk.outcome == {"hung up": 1}


def test_bye_of_the_far_end_during_a_move(talk: Talk) -> None:
    talk.cut()
    talk.cn("BYE", at=UP2)
    talk.cn_answers(481)  # to our re-INVITE
    talk.mn_answers(200, method="BYE")
    assert talk.to_mn() == ["BYE 101"], "one is enough"
    assert "200 101" in talk.to_cn()
    assert not talk.gateway.node.calls.open
    assert talk.outcome == {"hung up": 1}


def test_bye_challenged_during_a_move_and_the_move_goes_on(talk: Talk) -> None:
    talk.mn("BYE")
    talk.cut()
    talk.to_cn()
    talk.cn_answers(401, 'WWW-Authenticate: Digest realm="r", nonce="n"', method="BYE")
    assert "INVITE" in talk.to_cn()[-1], "the call still lives, so it moves"


def test_no_two_descriptions_have_the_same_version_though_one_was_refused(talk: Talk) -> None:
    """RFC 3264 §8."""
    talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    talk.cut()
    refused = talk.last(FAR, "INVITE")
    talk.cn_answers(488)
    ours = talk.last(FAR, "INVITE")
    assert direction(refused) != direction(ours)
    assert version(ours) > version(refused)
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    assert version(talk.last(FAR, "INVITE")) > version(ours)


def test_an_offer_that_outlives_its_call_takes_no_port_on_the_next_path(talk: Talk) -> None:
    talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    talk.cn("BYE")
    talk.mn_answers(200, method="BYE")
    assert not talk.gateway.node.calls.open
    talk.cut()
    assert not talk.gateway.node.ports.used


# ------------------------------------------------------------------------- RFC 6141: a re-INVITE fails half-way


def test_a_cancelled_re_invite_changes_nothing_and_the_move_offers_what_is_in_force(talk: Talk) -> None:
    branch = talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    talk.cn_answers(183)
    talk.mn("CANCEL", cseq=2, branch=branch)
    assert talk.to_cn() == ["INVITE 2", "CANCEL 2"]
    talk.cut()
    assert talk.to_cn() == ["ACK 2", "ACK 1", "INVITE 3"], "the CANCEL may be lost: the move must not wait for it"
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    assert "487 2" in talk.to_mn()


def test_an_update_within_a_re_invite_passes_and_its_change_outlives_the_re_invite(talk: Talk) -> None:
    """RFC 6141 §3.3: what has been executed already stays, although the re-INVITE fails."""
    talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    talk.cn_answers(183, "Require: 100rel", "RSeq: 7", body=sdp("192.0.2.9", "recvonly", 2))
    talk.mn("PRACK", "RAck: 7 2 INVITE")
    talk.cn_answers(200, method="PRACK")
    talk.cn("UPDATE", body=sdp("192.0.2.9", "inactive", 3))
    assert talk.to_mn()[-1] == "UPDATE 101"
    talk.mn_answers(200, body=sdp("10.7.0.11", "inactive", 3), method="UPDATE")
    talk.cn_answers(504)
    talk.to_cn()
    talk.cut()
    assert direction(talk.last(FAR, "INVITE")) == "inactive"


@pytest.mark.parametrize("status", [488, 491, 500])
def test_a_far_end_that_has_moved_is_reached_although_its_re_invite_is_refused(talk: Talk, status: int) -> None:
    """It names its new address because the old one may be dead; RFC 6141 §4 has it listen at both."""
    new = ("192.0.2.77", 5060)
    body = sdp("192.0.2.77", version=2)
    names = {"from_": "<sip:cn@192.0.2.9>;tag=cn", "to": "<sip:mn@else.example>;tag=mn"}
    uri = f"sip:{UP1};mn={talk.session.token}"
    contact = ("Contact: <sip:cn@192.0.2.77>", "Content-Type: application/sdp")
    talk.gateway.request(new, UP1, "INVITE", uri, *contact, cseq=101, body=body, **names)
    talk.mn_answers(status)
    talk.cut()
    ours = talk.gateway.got(new, "INVITE")
    assert len(ours) == 1
    assert address(ours[0]) == UP2


def test_a_move_that_still_waits_for_its_turn_is_spared_by_the_phones_own_offer() -> None:
    talk = Talk(move=MoveSettings(pace=1.0))
    gateway = talk.gateway
    for number in range(3):  # urgent calls, which go first
        invite = gateway.call("Priority: emergency", call_id=f"sos{number}")
        gateway.answer(FAR, invite, 200, "Contact: <sip:cn@192.0.2.9>")
        gateway.request(
            PHONE, INSIDE, "ACK", "sip:cn@192.0.2.9", to="<sip:cn@192.0.2.9>;tag=cn", call_id=f"sos{number}"
        )
    talk.cut()
    assert talk.session.move in gateway.node.handover.pacing.places
    before = len(gateway.got(FAR, "INVITE"))
    talk.mn("INVITE", body=sdp("10.7.0.11", "sendonly", 2))
    assert talk.via(talk.last(FAR, "INVITE")) == UP2
    talk.cn_answers(200, body=sdp("192.0.2.9", "recvonly", 2))
    talk.mn("ACK", cseq=2)
    assert talk.session.move not in gateway.node.handover.pacing.places
    gateway.run(20.0)
    assert len([m for m in gateway.got(FAR, "INVITE")[before:] if m.call_id == "c1"]) == 1
