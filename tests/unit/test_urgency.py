"""Which calls move first: Resource-Priority (RFC 4412), the operator's list, Priority, and what a call carries."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from sipnemo.media.ports import PortPool
from sipnemo.nemo.session_list import SessionStatus
from sipnemo.nemo.urgency import EMERGENCY, NAMED, NAMESPACES, named, stated
from sipnemo.roles.nms.call.media import SessionMedia
from sipnemo.roles.nms.call.session import Session
from sipnemo.roles.nms.move.order import NO_MEDIA, ON_HOLD, RINGING, SPEAKING, kind, of_request, rank
from sipnemo.roles.nms.path.paths import Path
from sipnemo.roles.nms.settings import EfaceSettings, PolicySettings
from sipnemo.sip.flow import Flow, Local
from sipnemo.sip.message import Request
from sipnemo.sip.parser import parse

ALL = tuple(NAMESPACES)
POLICY = PolicySettings(urgent=("fire@home.example", "+441632960000"))
OFFER = "v=0\r\no=- 1 1 IN IP4 10.7.0.11\r\ns=-\r\nc=IN IP4 10.7.0.11\r\nt=0 0\r\nm=audio 4000 RTP/AVP 18\r\n"
ANSWER = OFFER.replace("10.7.0.11", "192.0.2.101")


def invite(*headers: str) -> Request:
    lines = [
        "INVITE sip:out1@home.example SIP/2.0",
        "Via: SIP/2.0/UDP 10.7.0.11:5060;branch=z9hG4bK1",
        "From: <sip:in1@home.example>;tag=a",
        "To: <sip:out1@home.example>",
        "Call-ID: c",
        "CSeq: 1 INVITE",
        "Max-Forwards: 70",
        *headers,
        "Content-Length: 0\r\n\r\n",
    ]
    message = parse("\r\n".join(lines).encode())
    assert isinstance(message, Request)
    return message


@pytest.mark.req("MH-12")
@pytest.mark.parametrize(
    ("more", "less"),
    [
        *(pytest.param((f"{n}.{b}",), (f"{n}.{a}",), id=f"{n}.{b}") for n in ALL for a, b in pairwise(NAMESPACES[n])),
        *(
            pytest.param((f"{b}.{NAMESPACES[b][0]}",), (f"{a}.{NAMESPACES[a][-1]}",), id=f"{b} before {a}")
            for b, a in pairwise(ALL)
        ),
        pytest.param(("dsn.routine", "wps.4"), ("dsn.flash",), id="the most urgent of several"),
        pytest.param(("q735.4",), (), id="any before none"),
        pytest.param(("DSN.Flash",), ("dsn.immediate",), id="case does not matter"),
    ],
)
def test_resource_priority(more: tuple[str, ...], less: tuple[str, ...]) -> None:
    assert stated(more, ALL) > stated(less, ALL)


@pytest.mark.parametrize("value", ["", "wps", "wps.", "wps.5", "x.1", ".0", "dsn.0", "wps.0.0", "ets.\xe9"])
def test_what_rfc_4412_does_not_know_says_nothing(value: str) -> None:
    assert stated((value,), ALL) == 0


def test_the_operator_orders_the_namespaces_and_leaves_some_out() -> None:
    assert stated(("q735.4",), ("q735", "wps")) > stated(("wps.0",), ("q735", "wps"))
    assert stated(("ets.0",), ("q735", "wps")) == 0


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("sip:fire@home.example", True),
        ("sips:fire@HOME.example:5061;transport=tcp", True),
        ("sip:+441632960000@anywhere.example;user=phone", True),
        ("tel:+441632960000;phone-context=x", True),
        ("sip:fire@elsewhere.example", False),
        ("sip:home.example", False),
        ("sip:firefly@home.example", False),
        ("", False),
    ],
)
def test_the_operators_list(uri: str, found: bool) -> None:
    assert named((uri,), POLICY.urgent) == (NAMED if found else 0)


@pytest.mark.req("MH-12")
@pytest.mark.parametrize(
    ("headers", "urgency"),
    [
        ((), 0),
        (("Priority: emergency",), EMERGENCY),
        (("Priority: EMERGENCY",), EMERGENCY),
        (("Priority: urgent",), 0),
        (("Resource-Priority: wps.0, dsn.flash", "Priority: emergency"), stated(("wps.0",), ALL)),
        (("Resource-Priority: nobody.knows", "Priority: emergency"), EMERGENCY),
    ],
)
def test_what_an_invite_says(headers: tuple[str, ...], urgency: int) -> None:
    assert of_request(invite(*headers), POLICY) == urgency


def session(offer: str | None, answer: str | None = None, **values: Any) -> Session:
    """An answered call of a SIP-MN."""
    local = Local("UDP", "10.7.0.1", 5060)
    path = Path(EfaceSettings(id=1, priority=1, interface="wwan0"), "198.51.100.7", "wwan0", 0, 1)
    made = Session("call", True, Flow(local, ("10.7.0.11", 5060)), path, "token", 0.0)
    made.status = SessionStatus.SUCCESS
    made.mn_user, made.remote_value = "sip:in1@home.example", "<sip:out1@home.example>;tag=b"
    if offer is not None:
        pool = PortPool(16384, 16484, 5.0, "seed")
        made.media = SessionMedia("10.7.0.1", "198.51.100.7")
        made.media.from_mn(offer, "198.51.100.7", False, pool, 0.0)
        made.media.from_cn(answer or ANSWER, True, pool, 0.0)
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.req("MH-12")
@pytest.mark.parametrize(
    ("offer", "wanted"),
    [
        pytest.param(OFFER, SPEAKING, id="no direction is sendrecv"),
        pytest.param(OFFER + "a=sendrecv\r\n", SPEAKING, id="sendrecv"),
        pytest.param(OFFER + "a=sendonly\r\n", ON_HOLD, id="the SIP-MN holds"),
        pytest.param(OFFER + "a=recvonly\r\n", ON_HOLD, id="the SIP-CN holds"),
        pytest.param(OFFER + "a=inactive\r\n", ON_HOLD, id="both hold"),
        pytest.param(OFFER.replace("t=0 0\r\n", "t=0 0\r\na=inactive\r\n"), ON_HOLD, id="for the whole session"),
        pytest.param(
            OFFER.replace("t=0 0\r\n", "t=0 0\r\na=inactive\r\n") + "a=sendrecv\r\n", SPEAKING, id="the medium decides"
        ),
        pytest.param(
            OFFER + "a=sendrecv\r\nm=video 4002 RTP/AVP 96\r\na=inactive\r\n", SPEAKING, id="one of two speaks"
        ),
        pytest.param(OFFER.replace("c=IN IP4 10.7.0.11", "c=IN IP4 0.0.0.0"), ON_HOLD, id="hold as in RFC 2543"),
        pytest.param(OFFER.replace("m=audio 4000", "m=audio 0"), NO_MEDIA, id="port 0"),
        pytest.param(None, NO_MEDIA, id="no description"),
    ],
)
def test_what_a_call_carries(offer: str | None, wanted: int) -> None:
    answer = ANSWER if offer is None or "video" not in offer else ANSWER + "m=video 4002 RTP/AVP 96\r\n"
    assert kind(session(offer, answer)) == wanted


@pytest.mark.req("MH-12")
def test_the_whole_order() -> None:
    held = OFFER + "a=sendonly\r\n"
    calls = [
        session(held, urgent=stated(("wps.0",), ALL)),
        session(OFFER, urgent=stated(("wps.1",), ALL)),
        session(None, urgent=stated(("q735.4",), ALL)),
        session(OFFER, remote_value="Fire <sip:fire@home.example>;tag=b"),
        session(held, mn_user="sip:fire@home.example"),
        session(OFFER, urgent=EMERGENCY),
        session(OFFER),
        session(held),
        session(None),
        session(OFFER, status=SessionStatus.INVITING),
    ]
    ranks = [rank(call, POLICY) for call in calls]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == len(ranks)
    assert ranks[-1][1] == RINGING
