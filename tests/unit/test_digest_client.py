from __future__ import annotations

import pytest

from sipnemo.sip.digest import Answer, Challenge, DigestError, hash_of_user, parse_answer
from sipnemo.sip.digest_client import ClientAuth, Credentials, answer, strongest

ALICE = Credentials("alice", "wonder")


def challenge(nonce: str, realm: str = "home", **options: object) -> str:
    return str(Challenge(realm, nonce, qop=("auth",), **options))  # type: ignore[arg-type]


def sent(client: ClientAuth, cnonce: str = "c") -> list[str]:
    return [value for _, value in client.authorization("REGISTER", "sip:home", "", cnonce)]


def read(value: str) -> Answer:
    parsed = parse_answer(value)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["MD5", "SHA-256"], "SHA-256"),
        (["SHA-256", "SHA-512-256", "MD5"], "SHA-512-256"),
        (["MD5-sess", "MD5"], "MD5-sess"),
        (["FOO", "MD5"], "MD5"),
        (["FOO"], None),
        ([], None),
    ],
)
def test_the_strongest_known_algorithm_is_chosen(offered: list[str], chosen: str | None) -> None:
    best = strongest([Challenge("r", "n", algorithm) for algorithm in offered])
    assert (None if best is None else best.algorithm) == chosen


def test_a_challenge_with_unknown_qop_only_is_not_answered() -> None:
    with pytest.raises(DigestError):
        answer(ALICE, [Challenge("r", "n", qop=("auth-conf",))], "GET", "/", "", "c")


def test_auth_is_preferred_to_auth_int() -> None:
    both = Challenge("r", "n", qop=("auth-int", "auth"))
    assert read(answer(ALICE, [both], "GET", "/", "", "c")).qop == "auth"
    assert read(answer(ALICE, [both._replace(qop=("auth-int",))], "GET", "/", "", "c")).qop == "auth-int"


def test_a_hashed_user_name_is_sent_when_asked_for() -> None:
    sent = read(answer(ALICE, [Challenge("r", "n", "SHA-256", ("auth",), userhash=True)], "GET", "/", "", "c"))
    assert (sent.username, sent.userhash) == (hash_of_user("SHA-256", "alice", "r"), True)


def test_credentials_do_not_print_the_password() -> None:
    assert "wonder" not in repr(ALICE)


@pytest.mark.req("R4")
def test_a_nonce_is_reused_with_a_rising_count() -> None:
    client = ClientAuth(ALICE)
    assert sent(client) == []
    assert client.challenged(401, [challenge("n1")])
    assert [(read(v).nonce, read(v).nc) for v in (*sent(client), *sent(client))] == [("n1", 1), ("n1", 2)]


def test_a_refused_password_is_not_tried_again() -> None:
    client = ClientAuth(ALICE)
    assert client.challenged(401, [challenge("n1")])
    assert not client.challenged(401, [challenge("n2")], sent(client))


@pytest.mark.parametrize("stale", [True, False])
def test_an_aged_nonce_is_replaced_even_if_the_server_does_not_say_stale(stale: bool) -> None:
    client = ClientAuth(ALICE)
    client.challenged(401, [challenge("n1")])
    sent(client)
    assert client.challenged(401, [challenge("n2", stale=stale)], sent(client))
    (retry,) = sent(client)
    assert (read(retry).nonce, read(retry).nc) == ("n2", 1)
    assert not client.challenged(401, [challenge("n3")], [retry])


def test_two_requests_in_flight_with_one_nonce() -> None:
    client = ClientAuth(ALICE)
    client.challenged(401, [challenge("n1")])
    first, second = sent(client), sent(client)
    assert client.challenged(401, [challenge("n2", stale=True)], first)
    assert client.challenged(401, [challenge("n3")], second)


def test_proxy_and_server_are_answered_in_their_own_headers() -> None:
    client = ClientAuth(ALICE)
    client.challenged(407, [challenge("p", "proxy")])
    client.challenged(401, [challenge("h")])
    assert [(n, read(v).realm) for n, v in client.authorization("INVITE", "sip:b", "", "c")] == [
        ("Proxy-Authorization", "proxy"),
        ("Authorization", "home"),
    ]


def test_a_session_key_keeps_its_first_cnonce_and_nonce() -> None:
    client = ClientAuth(ALICE)
    client.challenged(401, [challenge("n1", algorithm="MD5-sess")])
    first = sent(client, "c1")
    client.authenticated('nextnonce="n2"', first)
    assert [(read(v).nonce, read(v).cnonce, read(v).nc) for v in (*first, *sent(client, "c2"))] == [
        ("n1", "c1", 1),
        ("n1", "c1", 2),
    ]


def test_nextnonce_starts_a_new_count() -> None:
    client = ClientAuth(ALICE)
    client.challenged(401, [challenge("n1")])
    client.authenticated('nextnonce="n2"', sent(client))
    client.authenticated("rubbish\x00", [])
    client.authenticated('rspauth="x"', [])
    assert [(read(v).nonce, read(v).nc) for v in sent(client)] == [("n2", 1)]


def test_realms_are_bounded_and_can_be_forgotten() -> None:
    client = ClientAuth(ALICE)
    client.challenged(407, [challenge("n", f"realm{i}") for i in range(50)])
    assert len(sent(client)) == 8
    client.forget()
    assert sent(client) == []


@pytest.mark.parametrize("values", [[], ["Basic realm=x"], ["Digest realm="], [challenge("n", algorithm="FOO")]])
def test_nothing_to_answer_is_no_hope(values: list[str]) -> None:
    assert not ClientAuth(ALICE).challenged(401, values)
