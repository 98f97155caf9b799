from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipnemo.sdp.description import parse
from sipnemo.sdp.rewrite import Endpoint, endpoints, move

OFFER = """\
v=0
o=- 7 9 IN IP4 10.7.0.20
s=A call
c=IN IP4 10.7.0.20
b=AS:128
t=0 0
a=group:BUNDLE a v
a=fingerprint:sha-256 AA:BB
m=audio 49170 RTP/SAVP 0 8 101
a=rtpmap:0 PCMU/8000
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj
a=x-unknown: \xff 10.7.0.20
""".replace("\n", "\r\n")


def moved(text: str, *ports: int | None, host: str = "203.0.113.5", version: int = 3) -> list[str]:
    result = move(text, host, ports, version=version)
    assert result.endswith("\r\n")
    return result.split("\r\n")[:-1]


@pytest.mark.req("RO-9")
def test_only_lines_with_addresses_change() -> None:
    before = OFFER.split("\r\n")[:-1]
    after = moved(OFFER, 20000)
    assert [(a, b) for a, b in zip(before, after, strict=True) if a != b] == [
        ("o=- 7 9 IN IP4 10.7.0.20", "o=- 7 3 IN IP4 203.0.113.5"),
        ("c=IN IP4 10.7.0.20", "c=IN IP4 203.0.113.5"),
        ("m=audio 49170 RTP/SAVP 0 8 101", "m=audio 20000 RTP/SAVP 0 8 101"),
    ]


def test_text_and_description_give_the_same_and_the_session_id_can_be_set() -> None:
    assert move(parse(OFFER), "203.0.113.5", [20000], version=3) == move(OFFER, "203.0.113.5", [20000], version=3)
    assert "o=- 77 3 IN IP4 203.0.113.5\r\n" in move(OFFER, "203.0.113.5", [20000], session_id="77", version=3)


@pytest.mark.req("R9")
def test_the_address_family_follows_the_new_host() -> None:
    lines = moved(OFFER + "a=rtcp:49180 IN IP4 10.7.0.20\r\n", 20000, host="2001:db8::5")
    assert lines[1] == "o=- 7 3 IN IP6 2001:db8::5"
    assert lines[3] == "c=IN IP6 2001:db8::5"
    assert lines[-1] == "a=rtcp:20001 IN IP6 2001:db8::5"
    assert moved("\r\n".join(lines) + "\r\n", 7000, host="192.0.2.1")[3] == "c=IN IP4 192.0.2.1"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("a=rtcp:49200", "a=rtcp:20001", id="own port"),
        pytest.param("a=rtcp:49170", "a=rtcp:20000", id="shares the RTP port"),
        pytest.param("a=rtcp:49200 IN IP4 10.7.0.21", "a=rtcp:20001 IN IP4 203.0.113.5", id="own address"),
        pytest.param("a=rtcp:9 IN IP4 0.0.0.0", "a=rtcp:20001 IN IP4 0.0.0.0", id="placeholder"),
    ],
)
def test_rtcp_moves_along(before: str, after: str) -> None:
    assert moved(OFFER + before + "\r\n", 20000)[-1] == after


def test_rejected_media_stay_rejected_and_none_rejects() -> None:
    text = OFFER + "m=video 0 RTP/AVP 99\r\nm=image 5000 udptl t38\r\na=rtcp:5001\r\n"
    assert [line for line in moved(text, 20000, 20002, None) if line[:2] == "m="] == [
        "m=audio 20000 RTP/SAVP 0 8 101",
        "m=video 0 RTP/AVP 99",
        "m=image 0 udptl t38",
    ]


def test_a_rejected_medium_without_formats_passes() -> None:
    assert moved(OFFER + "m=video 0 RTP/AVP\r\n", 20000, None)[-1] == "m=video 0 RTP/AVP"


def test_one_pair_is_forwarded_so_the_port_count_becomes_one() -> None:
    assert moved(OFFER.replace("49170", "49170/2"), 20000)[8] == "m=audio 20000 RTP/SAVP 0 8 101"


@pytest.mark.parametrize("address", ["IP4 0.0.0.0", "IP6 ::", "IP6 anonymous.invalid"])
def test_hold_by_address_stays_hold(address: str) -> None:
    lines = moved(OFFER.replace("c=IN IP4 10.7.0.20", f"c=IN {address}"), 20000)
    assert lines[3] == f"c=IN {address}"
    assert lines[1] == "o=- 7 3 IN IP4 203.0.113.5"
    assert lines[8].startswith("m=audio 20000 ")


def test_one_medium_on_hold_leaves_the_other_alone() -> None:
    lines = moved(OFFER + "c=IN IP4 0.0.0.0\r\nm=video 6000 RTP/AVP 99\r\nc=IN IP4 10.7.0.30\r\n", 20000, 20002)
    assert [line for line in lines if line[:2] == "c="] == [
        "c=IN IP4 203.0.113.5",
        "c=IN IP4 0.0.0.0",
        "c=IN IP4 203.0.113.5",
    ]


def test_multicast_is_left_where_it_is() -> None:
    text = OFFER + "m=video 6000/2 RTP/AVP 99\r\nc=IN IP4 224.2.1.1/127/2\r\na=rtcp:6005\r\n"
    assert moved(text, 20000, 20002)[-3:] == text.split("\r\n")[-4:-1]


def test_ice_goes() -> None:
    ice = (
        "a=ice-ufrag:abcd",
        "a=ice-pwd:abcdefghijklmnopqrstuv",
        "a=ice-options:ice2 trickle",
        "a=ice-lite",
        "a=ice-mismatch",
        "a=ice-pacing:50",
        "a=candidate:1 1 UDP 2130706431 10.7.0.20 49170 typ host",
        "a=remote-candidates:1 192.0.2.3 45664",
        "a=end-of-candidates",
    )
    assert moved(OFFER + "\r\n".join(ice) + "\r\n", 20000) == moved(OFFER, 20000)
    at_session = OFFER.replace("t=0 0\r\n", "t=0 0\r\n" + "\r\n".join(ice) + "\r\n")
    assert moved(at_session, 20000) == moved(OFFER, 20000)
    assert "a=icy" in moved(OFFER + "a=icy\r\n", 20000)


def test_ports_must_match_the_media() -> None:
    with pytest.raises(ValueError, match="2 ports for 1"):
        move(OFFER, "203.0.113.5", [1, 2], version=1)


@pytest.mark.parametrize(
    ("lines", "endpoint"),
    [
        pytest.param(
            "m=audio 4000 RTP/AVP 0",
            Endpoint("10.7.0.20", 4000, "10.7.0.20", 4001, False, True, False, True),
            id="plain",
        ),
        pytest.param(
            "m=audio 4000 RTP/AVP 0\r\na=rtcp:4007 IN IP4 10.7.0.9",
            Endpoint("10.7.0.20", 4000, "10.7.0.9", 4007, False, True, False, True),
            id="rtcp elsewhere",
        ),
        pytest.param(
            "m=audio 4000 RTP/AVP 0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=rtcp-mux",
            Endpoint("10.7.0.20", 4000, "10.7.0.20", 4001, True, True, False, True),
            id="rtcp placeholder, mux",
        ),
        pytest.param(
            "m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0",
            Endpoint("0.0.0.0", 4000, "0.0.0.0", 4001, False, True, True, True),
            id="held",
        ),
        pytest.param(
            "m=audio 0 RTP/AVP 0",
            Endpoint("10.7.0.20", 0, "10.7.0.20", 0, False, False, False, False),
            id="rejected",
        ),
        pytest.param(
            "m=message 7394 TCP/MSRP *",
            Endpoint("10.7.0.20", 7394, "10.7.0.20", 7395, False, True, False, False),
            id="not over UDP",
        ),
        pytest.param(
            "m=video 6000 RTP/AVP 99\r\nc=IN IP4 224.2.1.1/127",
            Endpoint("224.2.1.1", 6000, "224.2.1.1", 6001, False, True, False, False),
            id="multicast",
        ),
    ],
)
def test_endpoints(lines: str, endpoint: Endpoint) -> None:
    head = OFFER[: OFFER.index("m=audio")]
    assert endpoints(parse(head + lines + "\r\n")) == [endpoint]


HOSTS = st.sampled_from(["192.0.2.1", "203.0.113.99", "2001:db8::1", "0.0.0.0"])
LINES = st.lists(
    st.one_of(
        st.builds("m={} {} RTP/AVP 0".format, st.sampled_from(["audio", "video"]), st.integers(0, 65000)),
        st.builds(lambda host: f"c=IN {'IP6' if ':' in host else 'IP4'} {host}", HOSTS),
        st.builds("a=rtcp:{}".format, st.integers(1, 65000)),
        st.sampled_from(["a=sendonly", "a=rtcp-mux", "a=candidate:1", "a=mid:1", "k=clear:x", "i=\xe9"]),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(LINES)
def test_moving_back_restores_what_was_active(lines: list[str]) -> None:
    text = "\r\n".join(["v=0", "o=- 7 9 IN IP4 10.7.0.20", "s=-", "c=IN IP4 10.7.0.20", "t=0 0", *lines, ""])
    here = parse(text)
    ports = [20000 + 2 * i for i in range(len(here.media))]
    there = parse(move(here, "203.0.113.5", ports, version=10))
    assert [m.port for m in there.media] == [p if m.port else 0 for m, p in zip(here.media, ports, strict=True)]
    assert [(m.kind, m.direction, m.rtcp_mux) for m in there.media] == [
        (m.kind, m.direction, m.rtcp_mux) for m in here.media
    ]
    assert all(not m.ice for m in there.media)
    for before, after in zip(endpoints(here), endpoints(there), strict=True):
        assert (after.active, after.held) == (before.active, before.held)
        assert not after.active or after.host == (before.host if before.held else "203.0.113.5")
    assert move(there, "203.0.113.5", ports, version=10) == "\r\n".join([*there.lines, ""])
