"""A call's messages, told once each, in order."""

from __future__ import annotations

import pytest

from sipnemo.lab.delay import Message
from sipnemo.lab.ladder import build, call_id, sent_once, title
from sipnemo.lab.report import Event

NMS, HS = ("198.51.100.7", 5060), ("192.0.2.10", 5060)


def invite(at: float, dropped: bool = False, call: bytes = b"a") -> Message:
    return Message(at, dropped, NMS, HS, b"INVITE sip:b SIP/2.0\r\nCall-ID: " + call + b"\r\nCSeq: 1 INVITE\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"INVITE sip:b@h SIP/2.0\r\n\r\n", "INVITE"),
        (b"INVITE sip:b@h SIP/2.0\r\nl: 9\r\n\r\nv=0\r\no=x", "INVITE + SDP"),
        (b"SIP/2.0 180 Ringing\r\nCSeq: 7 INVITE\r\n\r\n", "180 Ringing (INVITE)"),
        (b"SIP/2.0 200 OK\r\n\r\n", "200 OK"),
    ],
)
def test_a_message_in_a_word(data: bytes, words: str) -> None:
    assert title(data) == words


@pytest.mark.parametrize("name", [b"Call-ID: ", b"i:", b"CALL-ID  :\t"])
def test_call_id_in_every_spelling(name: bytes) -> None:
    assert call_id(b"BYE sip:b SIP/2.0\r\n" + name + b"abc@x\r\n\r\n") == "abc@x"


def test_one_message_seen_at_two_places_is_told_once_but_a_retransmission_twice() -> None:
    seen = {
        "uplink1.up": [invite(1.0), invite(1.5, dropped=True)],
        "outside.1": [invite(1.025)],
    }
    assert [(m.at, m.dropped) for m in sent_once(seen)] == [(1.0, False), (1.5, True)]


def test_the_ladder_shows_the_call_and_registrations_from_the_event_on() -> None:
    register = Message(2.1, False, NMS, HS, b"REGISTER sip:h SIP/2.0\r\nCall-ID: r\r\nCSeq: 3 REGISTER\r\n\r\n")
    elsewhere = Message(2.2, False, NMS, ("192.0.2.99", 5060), invite(0).data)
    seen = {"uplink1.up": [invite(1.0), invite(2.05), register, invite(2.15, call=b"b"), elsewhere]}
    columns = {NMS[0]: ("SIP-NMS", "path1"), HS[0]: ("SIP-HS", "")}
    ladder = build("a call", "a", seen, columns, [Event(2.0, "cut")], until=3.0)
    assert [(arrow.at, arrow.text) for arrow in ladder.arrows] == [(2.05, "INVITE"), (2.1, "REGISTER")]
    assert [key for key, _heading, _kind in ladder.columns] == [NMS[0], HS[0]]
