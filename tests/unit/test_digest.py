from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipnemo.sip.digest import (
    Answer,
    Challenge,
    DigestError,
    ha1,
    hash_of_user,
    parse_answer,
    parse_challenges,
    parse_parameters,
    response_for,
)

MUFASA = Answer(
    "Mufasa",
    "http-auth@example.org",
    "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    "/dir/index.html",
    "",
    "MD5",
    "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    "auth",
    1,
    "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
)
RFC_2617 = Answer(
    "Mufasa",
    "testrealm@host.com",
    "dcd98b7102dd2f0e8b11d0f600bfb0c093",
    "/dir/index.html",
    "",
    "MD5",
    "0a4f113b",
    "auth",
    1,
)
JASON = Answer(
    "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b",
    "api@example.org",
    "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
    "/doe.json",
    "",
    "SHA-512-256",
    "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
    "auth",
    1,
    userhash=True,
)


@pytest.mark.parametrize(
    ("answer", "username", "password", "response"),
    [
        pytest.param(MUFASA, "Mufasa", "Circle of Life", "8ca523f5e9506fed4657c9700eebdbec", id="RFC 7616 §3.9.1 MD5"),
        pytest.param(
            MUFASA._replace(algorithm="SHA-256"),
            "Mufasa",
            "Circle of Life",
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            id="RFC 7616 §3.9.1 SHA-256",
        ),
        pytest.param(
            JASON,
            "Jäsøn Doe",
            "Secret, or not?",
            "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5",
            id="RFC 7616 §3.9.2 as corrected by erratum 4897",
        ),
        pytest.param(RFC_2617, "Mufasa", "Circle Of Life", "6629fae49393a05397450978507c4ef1", id="RFC 2617 §3.5"),
        pytest.param(
            RFC_2617._replace(qop="", cnonce="", nc=0),
            "Mufasa",
            "Circle Of Life",
            "670fd8c2df070c60b045671b8b24ff02",
            id="without qop",
        ),
    ],
)
def test_published_examples(answer: Answer, username: str, password: str, response: str) -> None:
    user = ha1(answer.algorithm, username, answer.realm, password)
    assert response_for(answer, user, "GET", "") == response


def test_the_published_user_hash() -> None:
    assert hash_of_user("SHA-512-256", "Jäsøn Doe", "api@example.org") == JASON.username


@pytest.mark.parametrize("change", [{"qop": "auth-int"}, {"algorithm": "MD5-sess"}, {"nc": 2}, {"cnonce": "x"}])
def test_every_input_changes_the_response(change: dict[str, object]) -> None:
    user = ha1("MD5", "Mufasa", MUFASA.realm, "Circle of Life")
    assert response_for(MUFASA, user, "GET", "") != response_for(MUFASA._replace(**change), user, "GET", "")  # type: ignore[arg-type]


def test_auth_int_covers_the_body() -> None:
    whole = MUFASA._replace(qop="auth-int")
    user = ha1("MD5", "Mufasa", MUFASA.realm, "Circle of Life")
    assert response_for(whole, user, "INVITE", "v=0") != response_for(whole, user, "INVITE", "v=1")


@pytest.mark.parametrize(
    ("values", "challenges"),
    [
        pytest.param(
            'Digest realm="biloxi.com", qop="auth,auth-int", nonce="dcd9", opaque="5ccc"',
            [Challenge("biloxi.com", "dcd9", "MD5", ("auth", "auth-int"), "5ccc")],
            id="RFC 3261 §20.44",
        ),
        pytest.param(
            'Digest realm="a", nonce="1", algorithm=SHA-256, qop="auth", Digest realm="a", nonce="1", algorithm=md5',
            [Challenge("a", "1", "SHA-256", ("auth",)), Challenge("a", "1", "MD5")],
            id="two in one line",
        ),
        pytest.param(
            ['Digest realm="a",nonce="1"', 'digest\trealm = "b" , nonce = "2", stale=TRUE, userhash=true'],
            [Challenge("a", "1"), Challenge("b", "2", stale=True, userhash=True)],
            id="two lines, odd spacing",
        ),
        pytest.param(
            r'Digest realm="a \"quoted, one\" \\", nonce="x=1,y=2"',
            [Challenge(r'a "quoted, one" \ '.strip(), "x=1,y=2")],
            id="escapes, commas and equals signs in quotes",
        ),
        pytest.param(
            'Negotiate YWJj==, Basic realm="b", Digest realm="a", nonce="1"',
            [Challenge("a", "1")],
            id="other schemes in between",
        ),
        pytest.param('Digest realm="a", nonce="1", algorithm=FOO-9', [Challenge("a", "1", "FOO-9")], id="unknown"),
        pytest.param('Digest realm="a", qop=auth, nonce=1', [Challenge("a", "1", "MD5", ("auth",))], id="unquoted"),
        pytest.param('Digest realm="a"', [], id="no nonce"),
        pytest.param('Digest realm="a, nonce="1"', [], id="quote left open"),
        pytest.param('Digest realm="a", realm="b", nonce="1"', [], id="given twice"),
        pytest.param("Digest", [], id="nothing"),
        pytest.param("", [], id="empty"),
    ],
)
def test_challenges(values: str | list[str], challenges: list[Challenge]) -> None:
    assert parse_challenges(values) == challenges


def test_credentials_as_a_phone_writes_them() -> None:
    text = (
        'Digest username="bob",realm="biloxi.com",nonce="dcd98b",uri="sip:bob@biloxi.com",qop=auth,nc=0000000A,'
        'cnonce="0a4f113b",response="6629fae4",opaque="5ccc", algorithm=md5, x-new="1"'
    )
    assert parse_answer(text) == Answer(
        "bob", "biloxi.com", "dcd98b", "sip:bob@biloxi.com", "6629fae4", "MD5", "0a4f113b", "auth", 10, "5ccc"
    )


@pytest.mark.parametrize(
    ("username", "name"),
    [
        ('username="J\xc3\xa4s\xc3\xb8n Doe"', "Jäsøn Doe"),
        ("username*=UTF-8''J%C3%A4s%C3%B8n%20Doe", "Jäsøn Doe"),
        ('username="J\xe4s\xf8n Doe"', "Jäsøn Doe"),
    ],
)
def test_user_names_beyond_ascii(username: str, name: str) -> None:
    answer = parse_answer(f'Digest {username}, realm="a", nonce="1", uri="sip:a", response="0"')
    assert answer is not None
    assert answer.username == name


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('Digest realm="a", nonce="1", uri="u", response="0"', id="no user"),
        pytest.param('Digest username="a", nonce="1", uri="u", response="0"', id="no realm"),
        pytest.param('Digest username="a", realm="a", nonce="1", uri="u", response="0", qop=auth', id="no nc"),
        pytest.param(
            'Digest username="a", realm="a", nonce="1", uri="u", response="0", qop=auth, nc=1, cnonce="c"', id="short"
        ),
        pytest.param(
            'Digest username="a", realm="a", nonce="1", uri="u", response="0", qop=auth, nc=0000000g, cnonce="c"',
            id="nc is not hex",
        ),
        pytest.param(
            'Digest username="a", realm="a", nonce="1", uri="u", response="0", qop=x, nc=00000001, cnonce="c"',
            id="unknown qop",
        ),
        pytest.param('Digest username="a', id="cut off"),
        pytest.param("Digest x", id="one word"),
    ],
)
def test_malformed_credentials(text: str) -> None:
    with pytest.raises(DigestError):
        parse_answer(text)


def test_credentials_of_another_scheme_are_none() -> None:
    assert parse_answer("Bearer abc") is None


def test_parameters_of_authentication_info() -> None:
    assert parse_parameters('nextnonce="a,b", qop=auth, NC=00000001') == {
        "nextnonce": "a,b",
        "qop": "auth",
        "nc": "00000001",
    }
    with pytest.raises(DigestError):
        parse_parameters("nextnonce=")


WIRE = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)


@settings(max_examples=100, deadline=None)
@given(WIRE, WIRE, st.text(max_size=8).filter(lambda t: t.isprintable()), WIRE, st.integers(1, 2**32 - 1))
def test_what_is_printed_is_read_back(realm: str, nonce: str, username: str, uri: str, count: int) -> None:
    challenge = Challenge(realm, nonce, "SHA-256-sess", ("auth",), uri, stale=True, userhash=True)
    assert parse_challenges(f"{challenge}, {challenge}") == [challenge, challenge]
    answer = Answer(username, realm, nonce, uri, "00", "SHA-256", "c", "auth", count, "o", userhash=True)
    assert parse_answer(str(answer)) == answer


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='Digest "=,\\x1\t', max_size=60))
def test_noise_is_refused_not_crashed_on(noise: str) -> None:
    parse_challenges("Digest " + noise)
    with contextlib.suppress(DigestError):
        parse_answer("Digest " + noise)
