"""Challenges to the gateway's own requests (R4): answered from [[trunk]], or left for the phone's next request."""

from __future__ import annotations

import pytest
from dialog_world import UP2, Talk, address, sdp
from nms_world import FAR, PHONE, Gateway

from sipnemo.roles.nms.settings import ProbeSettings, TrunkCredentials
from sipnemo.sip.digest import Answer, ha1, parse_answer, response_for
from sipnemo.sip.message import Request

pytestmark = pytest.mark.req("R4")

TRUNK = (TrunkCredentials("trunk", "fleet", "secret"), TrunkCredentials("edge", "4711", "other"))
PASSWORDS = {"trunk": ("fleet", "secret"), "edge": ("4711", "other")}
QUICK = ProbeSettings(hold_down=0.5)
HEADERS = {401: ("WWW-Authenticate", "authorization"), 407: ("Proxy-Authenticate", "proxy-authorization")}


def challenge(status: int, nonce: str, *, realm: str = "trunk", more: str = 'algorithm=MD5, qop="auth"') -> str:
    """A header line that asks for credentials."""
    return f'{HEADERS[status][0]}: Digest realm="{realm}", nonce="{nonce}", {more}'


def answers(request: Request, status: int = 401) -> list[Answer]:
    """The credentials in a request, each of them checked."""
    found: list[Answer] = []
    for value in request.values_raw(HEADERS[status][1]):
        answer = parse_answer(value)
        assert answer is not None
        name, password = PASSWORDS[answer.realm]
        user = ha1(answer.algorithm.removesuffix("-sess"), name, answer.realm, password)
        assert answer.uri == request.uri
        assert answer.response == response_for(answer, user, request.method, request.body)
        found.append(answer)
    return found


def talks(**changes: object) -> Talk:
    return Talk(**{"trunk": TRUNK, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [401, 407])
@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", "SHA-512-256", "MD5-sess", "SHA-256-sess"])
def test_a_challenge_is_answered_at_once_with_the_same_offer(status: int, algorithm: str) -> None:
    talk = talks()
    talk.cut()
    first = talk.last(FAR, "INVITE")
    assert not answers(first, status)
    talk.cn_answers(status, challenge(status, "n1", more=f'algorithm={algorithm}, qop="auth"'))
    second = talk.last(FAR, "INVITE")
    assert second.cseq == first.cseq + 1
    assert second.body == first.body, "the offer stands"
    (answer,) = answers(second, status)
    assert (answer.nonce, answer.algorithm, answer.nc) == ("n1", algorithm, 1)
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    assert talk.last(FAR, "ACK").values_raw(HEADERS[status][1]) == second.values_raw(HEADERS[status][1])  # §22.1
    talk.hear()
    assert talk.outcome == {"verified": 1}


def test_the_strongest_of_several_challenges_is_answered() -> None:
    talk = talks()
    talk.cut()
    lines = [challenge(401, "n1", more=f'algorithm={name}, qop="auth"') for name in ("MD5", "SHA-256")]
    talk.cn_answers(401, *lines)
    assert [answer.algorithm for answer in answers(talk.last(FAR, "INVITE"))] == ["SHA-256"]


@pytest.mark.parametrize(
    ("asked", "proxies", "servers"),
    [
        pytest.param([(407, "edge"), (401, "trunk")], ["edge"], ["trunk"], id="a proxy, then the server"),
        pytest.param([(407, "edge"), (407, "trunk")], ["edge", "trunk"], [], id="two proxies"),
    ],
)
def test_each_who_asks_on_the_way_is_answered(
    asked: list[tuple[int, str]], proxies: list[str], servers: list[str]
) -> None:
    talk = talks()
    talk.cut()
    for status, realm in asked:
        talk.cn_answers(status, challenge(status, f"n-{realm}", realm=realm))
    signed = talk.last(FAR, "INVITE")
    assert sorted(answer.realm for answer in answers(signed, 407)) == sorted(proxies)
    assert [answer.realm for answer in answers(signed, 401)] == servers


def test_one_response_with_both_kinds_is_answered_at_once() -> None:
    """RFC 3261 §16.7 item 7: a forking proxy collects challenges."""
    talk = talks()
    talk.cut()
    talk.cn_answers(401, challenge(401, "n1"), challenge(407, "n2", realm="edge"))
    signed = talk.last(FAR, "INVITE")
    assert [answer.realm for answer in answers(signed, 401)] == ["trunk"]
    assert [answer.realm for answer in answers(signed, 407)] == ["edge"]


def test_a_nonce_is_used_again_for_other_calls_and_moves_before_anybody_asks() -> None:
    talk = talks(probe=QUICK)
    gateway = talk.gateway
    other = gateway.talk(call_id="c2")
    talk.cut()
    assert not answers(other)
    talk.cn_answers(401, challenge(401, "n1"), which=-1)
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    talk.hear()
    talk.mend()
    talk.cut("sat0")
    signed = [request for request in gateway.got(FAR, "INVITE") + gateway.got(FAR, "UPDATE") if answers(request)]
    counts = [answers(request)[0].nc for request in sorted(signed, key=lambda request: answers(request)[0].nc)]
    assert counts == list(range(1, len(counts) + 1)), "each count once"
    assert len(counts) >= 3
    assert {request.call_id for request in signed} == {"c1", "c2"}


def test_a_stale_nonce_is_replaced_without_a_word() -> None:
    talk = talks(probe=QUICK)
    talk.cut()
    talk.cn_answers(401, challenge(401, "n1"))
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    talk.hear()
    talk.mend()
    talk.cut("sat0")
    assert [(a.nonce, a.nc) for a in answers(talk.last(FAR, "INVITE"))] == [("n1", 2)]
    talk.cn_answers(401, challenge(401, "n2", more='algorithm=MD5, qop="auth", stale=true'))
    assert [(a.nonce, a.nc) for a in answers(talk.last(FAR, "INVITE"))] == [("n2", 1)]
    talk.cn_answers(200, body=sdp("192.0.2.9"))
    talk.hear()
    assert talk.outcome == {"verified": 1}


@pytest.mark.parametrize(
    ("status", "info"), [(401, "Authentication-Info"), (407, "Proxy-Authentication-Info")], ids=["server", "proxy"]
)
def test_the_next_nonce_is_taken_from_the_answer(status: int, info: str) -> None:
    talk = talks(probe=QUICK)
    talk.cut()
    talk.cn_answers(status, challenge(status, "n1"))
    talk.cn_answers(200, f'{info}: nextnonce="n2"', body=sdp("192.0.2.9"))
    talk.hear()
    talk.mend()
    talk.cut("sat0")
    assert [(a.nonce, a.nc) for a in answers(talk.last(FAR, "INVITE"), status)] == [("n2", 1)]


def test_wrong_credentials_end_the_move_not_the_call_and_make_no_loop() -> None:
    talk = talks()
    talk.cut()
    for number in range(10):
        before = len(talk.gateway.got(FAR, "INVITE"))
        talk.cn_answers(401, challenge(401, f"n{number}"))
        if len(talk.gateway.got(FAR, "INVITE")) == before:
            break
    assert number == 1
    (wave,) = talk.gateway.node.handover.waves
    assert wave.row()["ended"] == {"failed": 1}
    assert "[[trunk]]" in wave.records[-1].detail
    assert talk.session.live
    talk.gateway.run(30.0)
    assert not answers(talk.last(FAR, "INVITE")) or len(talk.gateway.got(FAR, "INVITE")) == before


def test_a_hostile_server_cannot_ask_for_ever() -> None:
    talk = talks()
    talk.cut()
    for number in range(20):
        talk.cn_answers(401, challenge(401, f"n{number}", more='algorithm=MD5, qop="auth", stale=true'))
    assert len(talk.gateway.got(FAR, "INVITE")) <= 7


@pytest.mark.parametrize("more", ["algorithm=ROT13", 'qop="none"'])
def test_what_cannot_be_answered_is_not_tried(more: str) -> None:
    talk = talks()
    talk.cut()
    talk.cn_answers(401, challenge(401, "n1", more=more))
    talk.gateway.run(5.0)
    assert len(talk.gateway.got(FAR, "INVITE")) == 2
    assert talk.outcome == {"waiting": 1}


def test_our_bye_is_signed_too() -> None:
    talk = talks()
    talk.gateway.node.own_requests.hang_up_outside(talk.session, "lost", talk.gateway.now)
    talk.gateway.run(0.1)
    talk.cn_answers(407, challenge(407, "n1"), method="BYE")
    assert answers(talk.last(FAR, "BYE"), 407)


def test_our_update_is_signed_too() -> None:
    """Of a call without any description."""
    gateway = Gateway(trunk=TRUNK)
    gateway.talk()
    talk = Talk.__new__(Talk)
    talk.gateway = gateway
    talk.cut()
    asked = gateway.got(FAR, "UPDATE")[-1]
    gateway.answer(FAR, asked, 401, challenge(401, "n1"))
    assert answers(gateway.got(FAR, "UPDATE")[-1])


# ---------------------------------------------------------------------------------------- without credentials


@pytest.fixture
def asleep() -> Talk:
    """A call whose move is challenged, by a realm that nobody has configured."""
    talk = talks(trunk=())
    talk.cut()
    talk.cn_answers(407, challenge(407, "n1"))
    talk.to_cn(), talk.to_mn()
    return talk


def test_a_move_that_only_the_phone_can_sign_waits_and_says_so(asleep: Talk) -> None:
    asleep.gateway.run(300.0)
    assert asleep.to_cn() == [], "nobody is asked again and again"
    assert asleep.to_mn() == [], "and a challenge to a request that it never sent is not the phone's business"
    assert asleep.outcome == {"waiting": 1}
    assert asleep.gateway.node.handover.waves[-1].done_at is not None
    assert asleep.session.live


@pytest.mark.parametrize(
    ("method", "body"),
    [
        pytest.param("INVITE", sdp("10.7.0.11", version=2), id="re-INVITE"),
        pytest.param("UPDATE", sdp("10.7.0.11", version=2), id="UPDATE with an offer"),
        pytest.param("UPDATE", "", id="UPDATE without: an offer of ours goes with it"),
    ],
)
def test_the_phones_next_request_carries_the_move(asleep: Talk, method: str, body: str) -> None:
    asleep.mn(method, body=body)
    offer = asleep.last(FAR, method)
    assert asleep.via(offer) == UP2
    assert address(offer) == UP2
    assert UP2 in offer.value("contact")
    asleep.cn_answers(407, challenge(407, "n2"), method=method)
    assert "407 2" in asleep.to_mn(), "this challenge is the phone's"
    asleep.mn(method, 'Proxy-Authorization: Digest username="mn", realm="trunk"', body=body)
    signed = asleep.last(FAR, method)
    assert signed.value("proxy-authorization")
    assert address(signed) == UP2
    asleep.cn_answers(200, method=method, body=sdp("192.0.2.9", version=2))
    answer = asleep.last(PHONE, "200")
    assert bool(answer.body) is bool(body), "the phone gets an answer only to what it has offered"
    assert bool(body) is ("content-type" in answer.names)
    if method == "INVITE":
        asleep.mn("ACK", cseq=3)
    asleep.hear()
    assert asleep.outcome == {"verified": 1}
    assert asleep.session.move is None


def test_a_refresh_by_the_phone_without_offer_carries_the_move_in_its_ack(asleep: Talk) -> None:
    asleep.mn("INVITE")
    asleep.cn_answers(200, body=sdp("192.0.2.9", version=2))
    asleep.mn("ACK", cseq=2, body=sdp("10.7.0.11", version=2))
    assert address(asleep.last(FAR, "ACK")) == UP2
    asleep.hear()
    assert asleep.outcome == {"verified": 1}


def test_a_re_invite_of_the_far_end_carries_the_move_too(asleep: Talk) -> None:
    asleep.cn("INVITE", at=UP2, body=sdp("192.0.2.9", version=2))
    asleep.mn_answers(200, body=sdp("10.7.0.11", version=2))
    assert address(asleep.last(FAR, "200")) == UP2
    asleep.cn("ACK", at=UP2, cseq=101)
    asleep.hear()
    assert asleep.outcome == {"verified": 1}


def test_the_next_path_is_tried_anew(asleep: Talk) -> None:
    asleep.mend()
    asleep.gateway.run(10.0)
    asleep.to_cn()
    asleep.cut("sat0")
    assert any(text.startswith("INVITE") for text in asleep.to_cn())


def test_a_call_that_ends_while_its_move_waits_leaves_nothing(asleep: Talk) -> None:
    asleep.mn("BYE")
    asleep.cn_answers(200, method="BYE")
    assert asleep.outcome == {"hung up": 1}
    assert not asleep.gateway.node.calls.open
    assert not asleep.gateway.node.handover._watching
