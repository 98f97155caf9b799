"""Next hops that ask for less: 503, Retry-After, and overload control (RFC 7339)."""

from __future__ import annotations

import pytest

from sipnemo.roles.nms.move.hops import DEFER, OFFER, PAUSE, Hop, Hops
from sipnemo.sip.message import Response
from sipnemo.sip.parser import parse

REMOTE = ("192.0.2.1", 5060)


def response(status: int, via: str = "") -> Response:
    lines = [
        f"SIP/2.0 {status} Reason",
        f"Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK1{via}",
        "From: <sip:a@home.example>;tag=a",
        "To: <sip:b@home.example>;tag=b",
        "Call-ID: c",
        "CSeq: 2 INVITE",
        "Content-Length: 0\r\n\r\n",
    ]
    message = parse("\r\n".join(lines).encode())
    assert isinstance(message, Response)
    return message


def test_who_does_not_complain_is_not_remembered() -> None:
    hops = Hops()
    for status in (100, 200, 404, 500, 603):
        hops.heard(REMOTE, response(status, ";oc"), 0.0, 1.0)
    assert hops.of(REMOTE) is None


@pytest.mark.parametrize(("retry_after", "pause"), [(7.0, 7.0), (0.0, PAUSE), (600.0, 32.0)])
def test_a_503_stops_everything_for_a_while_and_then_lets_one_through(retry_after: float, pause: float) -> None:
    hops = Hops()
    hops.heard(REMOTE, response(503), retry_after, 1.0)
    hop = hops.of(REMOTE)
    assert hop is not None
    assert not hop.open(1.0 + pause - 0.001)
    assert hop.open(1.0 + pause)
    hop.sent()
    assert not hop.open(1.0 + pause)


def test_with_each_answer_twice_as_many_go() -> None:
    hops = Hops()
    hops.heard(REMOTE, response(503), 1.0, 0.0)
    hop = hops.of(REMOTE)
    assert hop is not None
    rounds = []
    for number in range(5):
        sent = 0
        while hop.open(2.0 + number):
            hop.sent()
            sent += 1
        for _ in range(sent):
            hop.heard(response(200), 0.0, 2.0 + number)
            hop.done()
        rounds.append(sent)
    assert rounds == [1, 2, 4, 8, 16]


def test_without_retry_after_the_pause_doubles_but_not_for_answers_to_what_had_left_before() -> None:
    hop = Hop()
    for _ in range(20):
        hop.heard(response(503), 0.0, 0.0)
    assert hop.closed_until == PAUSE
    for expected in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0):
        at = hop.closed_until
        hop.heard(response(503), 0.0, at)
        assert hop.closed_until == at + expected


@pytest.mark.parametrize(
    ("via", "declined"),
    [
        (';oc=20;oc-algo="loss";oc-validity=5000;oc-seq=1282321615.782', 20),
        (";oc=100;oc-validity=5000", 100),
        (";oc=0;oc-validity=5000", 0),
        (";oc=999;oc-validity=5000", 100),
        (";oc", 0),
        (";oc=-5;oc-validity=5000", 0),
        (";oc=20;oc-validity=0", 0),
        (";oc=half;oc-validity=5000", 0),
        (";oc=20;oc-validity=soon", 20),
    ],
)
def test_the_wanted_share_is_declined(via: str, declined: int) -> None:
    hop = Hop()
    hop.heard(response(100, via), 0.0, 10.0)
    assert sum(hop.declines(chance / 100, 10.2) for chance in range(100)) == declined


def test_the_word_of_a_hop_ends_with_its_validity() -> None:
    hop = Hop()
    hop.heard(response(100, ";oc=100;oc-validity=3000;oc-seq=1"), 0.0, 10.0)
    assert hop.declines(0.5, 12.9)
    assert not hop.declines(0.5, 13.1)


def test_an_older_word_changes_nothing() -> None:
    hop = Hop()
    hop.heard(response(100, ";oc=50;oc-validity=9000;oc-seq=5.1"), 0.0, 10.0)
    hop.heard(response(100, ";oc=90;oc-validity=9000;oc-seq=5.0"), 0.0, 11.0)
    assert hop.oc == 50
    hop.heard(response(100, ";oc=0;oc-validity=0;oc-seq=5.2"), 0.0, 12.0)
    assert not hop.declines(0.0, 12.0)


def test_a_hop_that_is_well_again_is_forgotten() -> None:
    hops = Hops()
    hops.heard(REMOTE, response(503), 0.0, 0.0)
    hops.heard(("192.0.2.2", 5060), response(503), 0.0, 1000.0)
    assert hops.of(REMOTE) is None


def test_what_is_offered_is_read_back_as_an_offer_only() -> None:
    hop = Hop()
    hop.heard(response(100, OFFER), 0.0, 1.0)
    assert not hop.declines(0.0, 1.0)
    assert DEFER > 0
