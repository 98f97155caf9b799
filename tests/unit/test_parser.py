"""What the parser refuses although a lenient one would not."""

from __future__ import annotations

import pytest

from sipnemo.sip.errors import ParseError
from sipnemo.sip.message import Request
from sipnemo.sip.parser import parse

INVITE = (
    "INVITE sip:bob@b.example SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx\r\n"
    "From: <sip:a@a.example>;tag=1\r\n"
    "To: <sip:bob@b.example>\r\n"
    "Call-ID: c\r\n"
    "CSeq: 1 INVITE\r\n"
    "Subject: {subject}\r\n"
    "\r\n"
)


@pytest.mark.parametrize("end", ["\n", "\r", "\n\r"])
def test_a_header_cannot_be_smuggled_behind_a_line_end_of_another_kind(end: str) -> None:
    """RFC 3261 §7: lines end with CRLF; who takes LF for an end as well would see a header that we did not."""
    message = INVITE.format(subject=f"hi{end}P-Asserted-Identity: <sip:boss@b.example>")
    with pytest.raises(ParseError) as refused:
        parse(message.encode())
    assert refused.value.status == 400
    assert isinstance(refused.value.message, Request)


def test_a_folded_header_is_one_line() -> None:
    """RFC 3261 §7.3.1."""
    message = parse(INVITE.format(subject="one\r\n two\r\n\tthree").encode())
    assert message.value("subject") == "one two three"


@pytest.mark.parametrize(
    "via",
    [
        "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx",
        "SIP/2.0/UDP 192.0.2.9;rport=5060;branch=z9hG4bKx",
        "SIP/2.0/UDP 192.0.2.9;rport=5060;received=192.0.2.1;branch=z9hG4bKx",
        "SIP/2.0/UDP 192.0.2.9;received=2001:db8::9;branch=z9hG4bKx;rport=5060",
        "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx;received=2001:db8::9",
        "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx;received=[2001:db8::9]",
        "SIP / 2.0 / UDP 192.0.2.9 ; branch = z9hG4bKx, SIP/2.0/TCP a.example;branch=z9hG4bKy",
    ],
)
def test_the_topmost_via_is_read_whatever_was_written_into_it(via: str) -> None:
    """RFC 3261 §18.2.1, RFC 3581 §4, RFC 5118 §4.5: `received` has no brackets; both ways are to be taken."""
    message = parse(INVITE.format(subject="hi").replace("SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx", via).encode())
    assert (message.sent_by, message.branch) == ("192.0.2.9", "z9hG4bKx")
