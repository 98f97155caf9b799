"""Offers written beforehand are exactly those that would have been written at the time (RO-10)."""

from __future__ import annotations

from collections.abc import Callable
from sys import getsizeof

import pytest

from sipnemo.media.ports import PortPool
from sipnemo.roles.nms.call.media import SessionMedia

SDP = "v=0\r\no=- 7 1 IN IP4 10.7.0.11\r\ns=-\r\nc=IN IP4 10.7.0.11\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 18\r\n"
FAR = SDP.replace("10.7.0.11", "192.0.2.101")
NEXT, OTHER = "203.0.113.7", "198.18.0.7"
POOL = PortPool(16384, 17384, 5.0, "seed")


def established() -> SessionMedia:
    media = SessionMedia("10.7.0.1", "198.51.100.7")
    media.from_mn(SDP, "198.51.100.7", False, POOL, 0.0)
    media.from_cn(FAR, True, POOL, 0.0)
    return media


def version(offer: str) -> int:
    return int(offer.split("o=", 1)[1].split()[2])


def test_a_prepared_offer_is_the_one_that_would_have_been_written() -> None:
    plain, prepared = established(), established()
    prepared.ports = plain.ports
    prepared.prepare(NEXT)
    for _ in range(2):
        assert prepared.again(NEXT) == plain.again(NEXT)


def changed(media: SessionMedia) -> None:
    media.from_mn(SDP.replace("7 1 IN", "7 2 IN") + "a=sendonly\r\n", "198.51.100.7", False, POOL, 0.0)
    media.from_cn(FAR + "a=recvonly\r\n", True, POOL, 0.0)


@pytest.mark.parametrize(
    ("event", "host"),
    [
        pytest.param(lambda media: None, OTHER, id="it goes elsewhere"),
        pytest.param(changed, NEXT, id="the SIP-MN has changed its description"),
        pytest.param(lambda media: media.again(OTHER), NEXT, id="it has moved meanwhile"),
    ],
)
def test_a_prepared_offer_that_has_become_wrong_is_dropped(event: Callable[[SessionMedia], object], host: str) -> None:
    plain, prepared = established(), established()
    prepared.ports = plain.ports
    prepared.prepare(NEXT)
    event(plain)
    event(prepared)
    assert prepared.again(host) == plain.again(host)


def test_preparing_changes_nothing_by_itself() -> None:
    media = established()
    first = version(media.again(NEXT))
    for _ in range(5):
        media.prepare(NEXT)
        media.prepare(OTHER)
    assert version(media.again(NEXT)) == first + 1


def test_what_is_kept_for_a_call_is_little() -> None:
    media = established()
    media.prepare(NEXT)
    prepared = media._prepared
    assert prepared is not None
    assert sum(map(getsizeof, (prepared, prepared.offer, prepared.before, prepared.after))) < 2_000
