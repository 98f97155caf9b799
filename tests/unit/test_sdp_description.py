from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipnemo.sdp.description import Connection, Origin, SdpError, parse

HEAD = "v=0\r\no=alice 1 2 IN IP4 10.7.0.20\r\ns=-\r\n"
PLAIN = HEAD + "c=IN IP4 10.7.0.20\r\nt=0 0\r\nm=audio 49170 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n"


def connection(address: str, addrtype: str = "IP4") -> Connection:
    return Connection(addrtype, address, unspecified=False, multicast=False)


def test_a_plain_offer() -> None:
    description = parse(PLAIN)
    (audio,) = description.media
    assert description.origin == Origin("alice", "1", 2, "IN", "IP4", "10.7.0.20")
    assert description.connection == audio.connection == connection("10.7.0.20")
    assert (audio.kind, audio.port, audio.port_count, audio.proto, audio.formats) == (
        ("audio", 49170, 1, "RTP/AVP", "0 101")
    )
    assert (audio.direction, audio.rtcp_port, audio.rtcp_mux, audio.ice) == ("sendrecv", None, False, False)
    assert description.lines == tuple(PLAIN.split("\r\n")[:-1])


def test_line_ends_may_be_crlf_or_lf_or_mixed_and_the_last_may_be_missing() -> None:
    assert parse(PLAIN.replace("\r\n", "\n")) == parse(PLAIN)
    assert parse(PLAIN.replace("\r\n", "\n", 2)) == parse(PLAIN)
    assert parse(PLAIN.rstrip("\r\n")) == parse(PLAIN)


@pytest.mark.parametrize("octet", ["\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\xff"])
def test_no_other_character_ends_a_line(octet: str) -> None:
    assert parse(PLAIN + f"a=x:1{octet}m=2\r\n").lines[-1] == f"a=x:1{octet}m=2"


def test_a_medium_with_its_own_connection() -> None:
    text = (
        HEAD
        + "t=0 0\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 10.0.0.1\r\nm=video 4002 RTP/AVP 99\r\nc=IN IP6 2001:db8::1\r\n"
    )
    description = parse(text)
    assert description.connection is None
    assert [m.connection for m in description.media] == [connection("10.0.0.1"), connection("2001:db8::1", "IP6")]


@pytest.mark.parametrize(
    ("lines", "rtcp"),
    [
        pytest.param("", (None, None, False), id="none"),
        pytest.param("a=rtcp:53020\r\n", (53020, None, False), id="port only"),
        pytest.param("a=rtcp:53020 IN IP4 10.0.0.9\r\n", (53020, "10.0.0.9", False), id="port and address"),
        pytest.param("a=rtcp:53020 IN IP6 2001:db8::9\r\n", (53020, "2001:db8::9", False), id="IPv6"),
        pytest.param("a=rtcp-mux\r\n", (None, None, True), id="mux"),
        pytest.param("a=rtcp-mux-only\r\na=rtcp:49170\r\n", (49170, None, True), id="mux only"),
        pytest.param("a=rtcp-fb:* nack\r\na=rtcp-rsize\r\n", (None, None, False), id="other rtcp attributes"),
    ],
)
def test_rtcp(lines: str, rtcp: tuple[int | None, str | None, bool]) -> None:
    (audio,) = parse(PLAIN + lines).media
    assert (audio.rtcp_port, audio.rtcp_address, audio.rtcp_mux) == rtcp


@pytest.mark.parametrize("direction", ["sendrecv", "sendonly", "recvonly", "inactive"])
def test_direction_of_a_medium_wins_over_the_session(direction: str) -> None:
    assert parse(PLAIN + f"a={direction}\r\n").media[0].direction == direction
    session = PLAIN.replace("t=0 0\r\n", f"t=0 0\r\na={direction}\r\n")
    assert parse(session).media[0].direction == direction
    assert parse(session).direction == direction
    assert parse(session + "a=recvonly\r\n").media[0].direction == "recvonly"


@pytest.mark.parametrize(
    ("address", "unspecified", "multicast"),
    [
        ("IP4 0.0.0.0", True, False),
        ("IP6 ::", True, False),
        ("IP6 anonymous.invalid", True, False),
        ("IP4 224.2.1.1/127/3", False, True),
        ("IP6 ff15::101/3", False, True),
        ("IP4 203.0.113.5", False, False),
    ],
)
def test_kinds_of_connection(address: str, unspecified: bool, multicast: bool) -> None:
    made = parse(PLAIN.replace("c=IN IP4 10.7.0.20", f"c=IN {address}")).media[0].connection
    assert made is not None
    assert (made.unspecified, made.multicast) == (unspecified, multicast)


def test_ice_is_seen_at_session_and_media_level() -> None:
    assert parse(PLAIN + "a=candidate:1 1 UDP 1 10.7.0.20 49170 typ host\r\n").media[0].ice
    assert parse(PLAIN.replace("t=0 0\r\n", "t=0 0\r\na=ice-ufrag:abcd\r\n")).media[0].ice
    assert not parse(PLAIN + "a=icebreaker\r\na=sendfile\r\na=inactivity\r\n").media[0].ice


def test_a_rejected_medium_needs_no_connection() -> None:
    assert parse(HEAD + "t=0 0\r\nm=audio 0 RTP/AVP 0\r\n").media[0].connection is None
    assert parse(HEAD + "t=0 0\r\nm=audio 0 RTP/AVP\r\n").media[0].formats == ""


def test_an_offer_without_media_is_legal() -> None:
    assert parse(HEAD + "t=0 0\r\n").media == ()


def test_a_port_count() -> None:
    assert parse(PLAIN.replace("49170", "49170/2")).media[0].port_count == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("v=0\r\n", "", id="no version"),
        pytest.param("v=0", "v=1", id="other version"),
        pytest.param("o=alice 1 2 IN IP4 10.7.0.20\r\n", "", id="no origin"),
        pytest.param("o=alice 1 2", "o=alice 1 x", id="origin version is no number"),
        pytest.param("o=alice 1 2", "o=alice 1 \xb2", id="a superscript is no number"),
        pytest.param("o=alice 1 2", "o=alice 1 " + "9" * 5000, id="origin version too long"),
        pytest.param("o=alice 1 2 IN", "o=alice 1 IN", id="origin too short"),
        pytest.param("s=-", "o=bob 1 2 IN IP4 10.7.0.20", id="two origins"),
        pytest.param("c=IN IP4 10.7.0.20\r\n", "", id="no connection"),
        pytest.param("c=IN IP4 10.7.0.20", "c=IN IP4", id="connection without address"),
        pytest.param("c=IN IP4 10.7.0.20", "c=ATM NSAP 47", id="other network"),
        pytest.param("c=IN IP4 10.7.0.20", "c=IN IP4 phone.example", id="a name"),
        pytest.param("c=IN IP4 10.7.0.20", "c=IN IP4 2001:db8::1", id="wrong family"),
        pytest.param("c=IN IP4 10.7.0.20", "c=IN IP6 fe80::1%eth0", id="zone"),
        pytest.param("49170", "65536", id="port too large"),
        pytest.param("49170", "-1", id="port negative"),
        pytest.param("49170", "\xb9", id="port is a superscript"),
        pytest.param("49170", "49170/0", id="count 0"),
        pytest.param("49170", "49170/", id="count empty"),
        pytest.param("m=audio 49170 RTP/AVP 0 101", "m=audio", id="m too short"),
        pytest.param("a=rtpmap:0 PCMU/8000", "a=rtcp:x", id="rtcp port"),
        pytest.param("a=rtpmap:0 PCMU/8000", "a=rtcp:1 IN IP4", id="rtcp too short"),
        pytest.param("a=rtpmap:0 PCMU/8000", "a=rtcp:1 IN IP4 1.2.3", id="rtcp address"),
    ],
)
def test_what_cannot_be_served_says_why(old: str, new: str) -> None:
    assert old in PLAIN
    with pytest.raises(SdpError, match=r"\w"):
        parse(PLAIN.replace(old, new))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="voscmta=:IN46.0123 /\r\n-rp", max_size=120))
def test_noise_is_refused_not_crashed_on(noise: str) -> None:
    for text in (noise, HEAD + noise, PLAIN + noise):
        with contextlib.suppress(SdpError):
            parse(text)
