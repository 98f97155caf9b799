"""Messages cut from a stream, whatever way the octets arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipnemo.sip.framer import FramingError, StreamFramer


def message(body: bytes = b"", length: str | None = None, method: str = "OPTIONS") -> bytes:
    value = str(len(body)) if length is None else length
    return (
        f"{method} sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\n"
        f"From: <sip:b@example.com>;tag=1\r\nTo: <sip:a@example.com>\r\nCall-ID: 1@x\r\nCSeq: 1 {method}\r\n"
        f"Content-Length: {value}\r\n\r\n"
    ).encode() + body


ONE = message()
TWO = message(b"v=0\r\n\r\n")


@pytest.mark.parametrize(
    ("stream", "messages", "pings"),
    [
        pytest.param(ONE, [ONE], 0, id="one message"),
        pytest.param(ONE + TWO + ONE, [ONE, TWO, ONE], 0, id="several messages in one piece"),
        pytest.param(b"\r\n" + ONE, [ONE], 0, id="CRLF before the start line (§7.5)"),
        pytest.param(b"\r\n\r\n" + ONE, [ONE], 1, id="ping before a message"),
        pytest.param(b"\r\n\r\n", [], 1, id="ping"),
        pytest.param(b"\r\n", [], 0, id="pong"),
        pytest.param(b"\r\n\r\n\r\n\r\n", [], 2, id="two pings"),
        pytest.param(ONE + b"\r\n\r\n" + TWO + b"\r\n", [ONE, TWO], 1, id="ping between messages"),
        pytest.param(ONE + b"\r\n" + TWO + b"\r\n", [ONE, TWO], 0, id="stray CRLFs are no ping"),
        pytest.param(
            ONE.replace(b"Content-Length", b"l"), [ONE.replace(b"Content-Length", b"l")], 0, id="compact form"
        ),
        pytest.param(message(b"abc", "\r\n  3"), [message(b"abc", "\r\n  3")], 0, id="folded Content-Length (§7.3.1)"),
        pytest.param(
            message(b"abc", "3\r\nContent-Length: 3"),
            [message(b"abc", "3\r\nContent-Length: 3")],
            0,
            id="the same Content-Length twice",
        ),
        pytest.param(
            message(b"Content-Length: 9\r\n\r\n"), [message(b"Content-Length: 9\r\n\r\n")], 0, id="body like a head"
        ),
        pytest.param(message(b"abc\0\xff"), [message(b"abc\0\xff")], 0, id="any octets in the body"),
        pytest.param(message(b"abc", "3  "), [message(b"abc", "3  ")], 0, id="spaces behind the number"),
    ],
)
@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 20], ids=lambda piece: f"pieces of {piece}")
def test_messages_come_out_whole(stream: bytes, messages: list[bytes], pings: int, piece: int) -> None:
    framer = StreamFramer()
    out: list[bytes] = []
    for at in range(0, len(stream), piece):
        out += framer.feed(stream[at : at + piece])
    assert out == messages
    assert framer.pings == pings
    assert framer.pending == 0


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(1, 300), min_size=1))
def test_pieces_never_matter(bodies: list[bytes], pieces: list[int]) -> None:
    messages = [message(body) for body in bodies]
    stream = b"".join(messages)
    framer = StreamFramer()
    out: list[bytes] = []
    turn = 0
    while stream:
        size = pieces[turn % len(pieces)]
        out += framer.feed(stream[:size])
        stream = stream[size:]
        turn += 1
    assert out == messages


@pytest.mark.parametrize(
    ("stream", "status"),
    [
        pytest.param(ONE.replace(b"Content-Length: 0\r\n", b""), 400, id="no Content-Length"),
        pytest.param(message(b"", "-1"), 400, id="negative"),
        pytest.param(message(b"", "many"), 400, id="not a number"),
        pytest.param(message(b"", ""), 400, id="empty"),
        pytest.param(message(b"", "0x10"), 400, id="hexadecimal"),
        pytest.param(message(b"", "1\r\nContent-Length: 2"), 400, id="two different ones"),
        pytest.param(message(b"", "1001"), 413, id="body too large"),
        pytest.param(message(b"", "9" * 5000), 513, id="absurd, and so is the head"),
        pytest.param(message(b"", "9" * 500), 413, id="absurd"),
        pytest.param(b"OPTIONS sip:a@b SIP/2.0\r\n" + b"X: y\r\n" * 300, 513, id="head without end"),
        pytest.param(b"x" * 2000, 513, id="garbage without end"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1 << 20], ids=lambda piece: f"pieces of {piece}")
def test_what_cannot_be_framed_is_refused(stream: bytes, status: int, piece: int) -> None:
    framer = StreamFramer(max_message=1000)
    with pytest.raises(FramingError) as caught:  # noqa: PT012
        for at in range(0, len(stream), piece):
            framer.feed(stream[at : at + piece])
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("head", "answered"),
    [
        pytest.param(ONE.replace(b"Content-Length: 0\r\n", b""), True, id="request"),
        pytest.param(message(method="ACK").replace(b"Content-Length: 0\r\n", b""), False, id="ACK"),
        pytest.param(b"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP a\r\n\r\n", False, id="response"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", False, id="not SIP"),
    ],
)
def test_only_requests_are_answered(head: bytes, answered: bool) -> None:
    with pytest.raises(FramingError) as caught:
        StreamFramer().feed(head)
    response = caught.value.response
    assert bool(response) == answered
    if answered:
        assert response == (
            b"SIP/2.0 400 Content-Length Required On A Stream\r\n"
            b"Via: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:b@example.com>;tag=1\r\n"
            b"To: <sip:a@example.com>\r\nCall-ID: 1@x\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        )


def test_a_large_body_in_small_pieces_is_not_searched_again_and_again() -> None:
    framer = StreamFramer(max_message=1 << 20)
    body = b"x" * 500_000
    stream = message(body)
    out: list[bytes] = []
    for at in range(0, len(stream), 1460):
        out += framer.feed(stream[at : at + 1460])
    assert out == [stream]
