from __future__ import annotations

import pytest

from sipnemo.sip.digest import ha1, parse_challenges
from sipnemo.sip.digest_client import ClientAuth, Credentials, answer
from sipnemo.sip.digest_server import Authenticator, Outcome, Secret

SECRETS: dict[str, Secret] = {
    "alice": "wonder",
    "müller": "straße",
    "hashed": {"SHA-256": ha1("SHA-256", "hashed", "home", "x")},
}
URI = "sip:home"


def server(**options: object) -> Authenticator:
    return Authenticator("home", b"secret", **options)  # type: ignore[arg-type]


def reply(
    auth: Authenticator,
    now: float,
    *,
    user: str = "alice",
    password: str = "wonder",
    nc: int = 1,
    keep: str = "",
    body: str = "",
    challenge: list[str] | None = None,
) -> str:
    """What a client answers to this server's challenge; `keep`: only challenges with this text."""
    values = [v for v in (challenge or auth.challenge(now)) if keep in v]
    return answer(Credentials(user, password), parse_challenges(values), "REGISTER", URI, body, "cn", nc)


def outcome(auth: Authenticator, credentials: str | list[str], now: float, method: str = "REGISTER") -> Outcome:
    return auth.verify(method, credentials, "", SECRETS.get, now).outcome


def test_challenges_come_strongest_first_with_one_fresh_nonce() -> None:
    auth = server()
    first, second = parse_challenges(auth.challenge(1.0))
    assert [first.algorithm, second.algorithm] == ["SHA-256", "MD5"]
    assert first.nonce == second.nonce != parse_challenges(auth.challenge(1.0))[0].nonce
    assert first.qop == ("auth",)
    assert not first.stale
    assert parse_challenges(auth.challenge(1.0, stale=True))[0].stale


@pytest.mark.parametrize(
    ("user", "password", "keep", "result"),
    [
        pytest.param("alice", "wonder", "", Outcome.OK, id="strongest"),
        pytest.param("alice", "wonder", "MD5", Outcome.OK, id="MD5 accepted"),
        pytest.param("müller", "straße", "", Outcome.OK, id="UTF-8"),
        pytest.param("alice", "wunder", "", Outcome.BAD, id="wrong password"),
        pytest.param("nobody", "wonder", "", Outcome.BAD, id="no such user"),
        pytest.param("hashed", "x", "", Outcome.OK, id="stored hash"),
        pytest.param("hashed", "x", "MD5", Outcome.BAD, id="a weaker algorithm than the stored hash"),
        pytest.param("hashed", "y", "", Outcome.BAD, id="stored hash, wrong password"),
    ],
)
def test_verdicts(user: str, password: str, keep: str, result: Outcome) -> None:
    auth = server()
    verdict = auth.verify("REGISTER", reply(auth, 1.0, user=user, password=password, keep=keep), "", SECRETS.get, 1.0)
    assert verdict.outcome is result
    assert verdict.ok == (result is Outcome.OK)
    assert verdict.username == user
    assert verdict.uri == URI
    assert bool(verdict.reason) != verdict.ok


def test_without_credentials_for_our_realm_there_are_none() -> None:
    auth = server()
    other = Authenticator("away", b"secret")
    assert outcome(auth, [], 1.0) is Outcome.MISSING
    assert outcome(auth, ["Bearer x", reply(other, 1.0)], 1.0) is Outcome.MISSING
    assert outcome(auth, [reply(other, 1.0), reply(auth, 1.0)], 1.0) is Outcome.OK


@pytest.mark.parametrize("text", ["Digest", "Digest username=", 'Digest username="\xff"', 'Digest realm="home"'])
def test_malformed_credentials_are_bad_not_fatal(text: str) -> None:
    assert outcome(server(), text, 1.0) is Outcome.BAD


def test_the_method_and_with_auth_int_the_body_are_covered() -> None:
    auth = server(qop=("auth-int",))
    credentials = reply(auth, 1.0, body="v=0")
    assert auth.verify("REGISTER", credentials, "v=1", SECRETS.get, 1.0).outcome is Outcome.BAD
    assert auth.verify("INVITE", credentials, "v=0", SECRETS.get, 1.0).outcome is Outcome.BAD
    assert auth.verify("REGISTER", credentials, "v=0", SECRETS.get, 1.0).outcome is Outcome.OK


def test_an_algorithm_that_was_not_offered_is_bad() -> None:
    strict = server(algorithms=("SHA-256",))
    assert outcome(strict, reply(server(), 1.0, keep="MD5"), 1.0) is Outcome.BAD


@pytest.mark.parametrize("algorithm", ["SHA-512-256", "SHA-256-sess", "MD5-sess", "SHA-512-256-sess"])
def test_every_algorithm_works_end_to_end(algorithm: str) -> None:
    auth = server(algorithms=(algorithm,))
    assert outcome(auth, reply(auth, 1.0), 1.0) is Outcome.OK


def test_a_nonce_serves_until_it_is_old() -> None:
    auth = server(nonce_for=10.0)
    nonce = auth.challenge(100.0)
    assert outcome(auth, reply(auth, 0, challenge=nonce), 110.0) is Outcome.OK
    assert outcome(auth, reply(auth, 0, challenge=nonce, nc=2), 110.1) is Outcome.STALE


def test_a_foreign_or_future_nonce_is_stale_but_only_for_who_knows_the_password() -> None:
    before_restart = Authenticator("home", b"other secret")
    assert outcome(server(), reply(before_restart, 1.0), 1.0) is Outcome.STALE
    assert outcome(server(), reply(before_restart, 1.0, password="x"), 1.0) is Outcome.BAD
    assert outcome(server(), reply(server(), 900.0), 1.0) is Outcome.STALE


def test_a_replay_is_seen_and_overtaking_is_not_one() -> None:
    auth = server()
    nonce = auth.challenge(1.0)
    counts = [1, 3, 2, 2, 70, 7, 6, 71, 3]
    expected = [Outcome.OK, Outcome.OK, Outcome.OK, Outcome.REPLAYED, Outcome.OK, Outcome.OK]
    expected += [Outcome.REPLAYED, Outcome.OK, Outcome.REPLAYED]
    assert [outcome(auth, reply(auth, 0, challenge=nonce, nc=nc), 1.0) for nc in counts] == expected


def test_credentials_without_qop_use_a_nonce_up() -> None:
    auth = server()
    plain = [v.replace(', qop="auth"', "") for v in auth.challenge(1.0)]
    credentials = reply(auth, 0, challenge=plain)
    assert "qop" not in credentials
    assert outcome(auth, credentials, 1.0) is Outcome.OK
    assert outcome(auth, credentials, 1.0) is Outcome.STALE


def test_memory_is_bounded_and_forgetting_opens_no_replay() -> None:
    auth = server(memory=10)
    used = [reply(auth, float(i)) for i in range(100)]
    assert [outcome(auth, one, 100.0) for one in used][-1] is Outcome.OK
    assert len(auth._uses) <= 10
    assert Outcome.OK not in [outcome(auth, one, 100.0) for one in used]


def test_only_right_passwords_take_memory() -> None:
    auth = server()
    for i in range(5):
        outcome(auth, reply(auth, float(i), password="x"), float(i))
    assert not auth._uses


def test_nextnonce_spares_the_next_challenge() -> None:
    auth = server()
    client = ClientAuth(Credentials("alice", "wonder"))
    assert client.challenged(401, auth.challenge(1.0))
    ((_, first),) = client.authorization("REGISTER", URI, "", "c1")
    assert outcome(auth, first, 1.0) is Outcome.OK
    client.authenticated(auth.authentication_info(250.0), [first])
    ((_, second),) = client.authorization("REGISTER", URI, "", "c2")
    assert outcome(auth, second, 400.0) is Outcome.OK
