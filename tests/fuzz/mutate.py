"""Broken messages from good ones: bits, cuts, headers twice or missing, two in one, huge numbers, odd line ends."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

NUMBERS = (
    b"0", b"-1", b"1", b"65535", b"65536", b"4294967295", b"4294967296", b"2147483648", b"99999999999999999999",
    b"9" * 400, b"1e9", b"0x10", b"+5", b"\xb2", "٣".encode(), b"",
)  # fmt: skip
ENDS = (b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\r\n\t", b"\r\n\r\n", b"", b"\x00", b" \r\n")
PIECES = (
    b";", b",", b"<", b">", b'"', b"\\", b"%", b"%00", b"%zz", b"@", b":", b"[", b"]", b"[::1]", b"?a=b", b"\x00",
    b"\xff", b"\xc3\xa9", b"=", b";tag=", b";branch=z9hG4bK", b";rport", b";lr", b";mn=", b";expires=0", b"*", b" ",
    b"\t", b"sip:", b"sips:", b"tel:+1", b"urn:service:sos", b";maddr=224.0.0.1", b";transport=tls", b"SIP/2.0",
    b"a" * 3000,
)  # fmt: skip
HEADERS = (
    b"Content-Length: 0", b"Content-Length: 99999", b"Max-Forwards: 0", b"Max-Forwards: x", b"Require: 100rel",
    b"Replaces: a;to-tag=b;from-tag=c", b"Contact: *", b"Contact: <sip:>", b"Expires: 0", b"Expires: -5",
    b"Route: <sip:10.7.0.1;lr>", b"Route: <sip:a@b@c>", b"Record-Route: x", b"Session-Expires: 0",
    b"RAck: 1 1 INVITE", b"Event: refer;id=99", b"Authorization: Digest", b'Proxy-Authorization: Digest username="x',
    b"Content-Encoding: gzip", b"Content-Type: multipart/mixed;boundary=x",
    b"Via: SIP/2.0/UDP 10.7.0.11:5060;branch=z9hG4bKx", b"Retry-After: ;;", b"Refer-To: <sip:x@y?Replaces=z>",
    b"Supported: timer, ,100rel", b"P-Associated-URI: <sip:evil@example.com>",
)  # fmt: skip
_NUMBER = re.compile(rb"\d+")


def bits(chance: Random, data: bytes, _other: bytes) -> bytes:
    """Some bits the other way round."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        if out:
            out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def cut(chance: Random, data: bytes, _other: bytes) -> bytes:
    """The end is missing."""
    return data[: chance.randrange(len(data) + 1)]


def twice(chance: Random, data: bytes, _other: bytes) -> bytes:
    """A line comes twice, somewhere."""
    lines = data.split(b"\r\n")
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
    return b"\r\n".join(lines)


def without(chance: Random, data: bytes, _other: bytes) -> bytes:
    """A line is missing."""
    lines = data.split(b"\r\n")
    del lines[chance.randrange(len(lines))]
    return b"\r\n".join(lines)


def swapped(chance: Random, data: bytes, _other: bytes) -> bytes:
    """Two lines have changed places."""
    lines = data.split(b"\r\n")
    a, b = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\r\n".join(lines)


def spliced(chance: Random, data: bytes, other: bytes) -> bytes:
    """The lines of two messages, mixed."""
    lines, others = data.split(b"\r\n"), other.split(b"\r\n")
    if chance.random() < 0.5:
        return b"\r\n".join(lines[: chance.randrange(len(lines))] + others[chance.randrange(len(others)) :])
    lines[chance.randrange(len(lines))] = chance.choice(others)
    return b"\r\n".join(lines)


def number(chance: Random, data: bytes, _other: bytes) -> bytes:
    """A number that is none, or far too large."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return data
    match = chance.choice(found)
    return data[: match.start()] + chance.choice(NUMBERS) + data[match.end() :]


def ends(chance: Random, data: bytes, _other: bytes) -> bytes:
    """Lines end otherwise."""
    if chance.random() < 0.2:
        return data.replace(b"\r\n", chance.choice(ENDS))
    lines = data.split(b"\r\n")
    at = chance.randrange(len(lines))
    return b"\r\n".join(lines[:at]) + chance.choice(ENDS) + b"\r\n".join(lines[at:])


def piece(chance: Random, data: bytes, _other: bytes) -> bytes:
    """Something that means something, in the wrong place."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(PIECES) + data[at + chance.choice((0, 0, 1, 5)) :]


def header(chance: Random, data: bytes, _other: bytes) -> bytes:
    """One header more, below the start line or in place of another."""
    lines = data.split(b"\r\n")
    at = chance.randrange(1, len(lines) + 1) if len(lines) > 1 else 1
    if chance.random() < 0.3 and at < len(lines):
        lines[at] = chance.choice(HEADERS)
    else:
        lines.insert(at, chance.choice(HEADERS))
    return b"\r\n".join(lines)


def many(chance: Random, data: bytes, _other: bytes) -> bytes:
    """A line hundreds of times, or a value that never ends."""
    lines = data.split(b"\r\n")
    at = chance.randrange(len(lines))
    if chance.random() < 0.5:
        lines[at:at] = [lines[at]] * chance.choice((20, 300))
    else:
        lines[at] += b"," + lines[at].partition(b":")[2] * chance.choice((3, 100))
    return b"\r\n".join(lines)


KINDS: Sequence[Callable[[Random, bytes, bytes], bytes]] = (
    bits, cut, twice, without, swapped, spliced, number, number, ends, piece, piece, header, header, many,
)  # fmt: skip


def mutated(chance: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """One broken message."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = chance.choice(KINDS)(chance, data, chance.choice(corpus))
    return data[:65_000]
