"""STUN Binding (RFC 8489): the keep-alive and liveness probe of a SIP flow (RFC 5626 §4.4.2).

Encodes and decodes; transaction ids come in as arguments, retransmission is the caller's. Only what a SIP flow needs:
no authentication, no alternate server.
"""

from __future__ import annotations

import zlib
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

Address = tuple[str, int]

_COOKIE: Final = b"\x21\x12\xa4\x42"
_HEADER: Final = 20
_BINDING: Final = 0x001

_MAPPED_ADDRESS: Final = 0x0001
_ERROR_CODE: Final = 0x0009
_UNKNOWN_ATTRIBUTES: Final = 0x000A
_XOR_MAPPED_ADDRESS: Final = 0x0020
_SOFTWARE: Final = 0x8022
_FINGERPRINT: Final = 0x8028
_FINGERPRINT_XOR: Final = 0x5354554E

# Comprehension-required attributes (below 0x8000) that a Binding request of ICE or NAT discovery carries, and that a
# server without authentication may well disregard: USERNAME, MESSAGE-INTEGRITY(-SHA256), PRIORITY, USE-CANDIDATE.
_DISREGARDED: Final = frozenset((0x0006, 0x0008, 0x001C, 0x0024, 0x0025))


class StunError(ValueError):
    """Not a well-formed STUN message."""


class Request(NamedTuple):
    """A Binding request."""

    transaction_id: bytes
    unknown: tuple[int, ...] = ()
    "Comprehension-required attributes that we do not know: to be answered by error 420 (RFC 8489 §6.3.1)."


class Indication(NamedTuple):
    """A Binding indication: a keep-alive without answer."""

    transaction_id: bytes


class Success(NamedTuple):
    """A Binding success response."""

    transaction_id: bytes
    mapped: Address
    "Our address and port as the far end sees them."

    software: str = ""
    "What the far end calls itself, if it does."


class Failure(NamedTuple):
    """A Binding error response. As an answer it proves the flow alive all the same."""

    transaction_id: bytes
    code: int
    reason: str
    unknown: tuple[int, ...] = ()


Message = Request | Indication | Success | Failure


def is_stun(data: bytes) -> bool:
    """Whether these octets are STUN and not SIP: a SIP message never begins with an octet of 0 to 3."""
    return len(data) >= _HEADER and data[0] <= 3 and data[4:8] == _COOKIE


def encode_indication(transaction_id: bytes) -> bytes:
    """A Binding indication: a keep-alive that nobody answers, and that is no RTP for who knows no STUN."""
    return _message(0x0011, transaction_id, b"")


def encode_request(transaction_id: bytes, software: str = "") -> bytes:
    """A Binding request with FINGERPRINT; `transaction_id` is 12 unguessable octets."""
    attributes = _attribute(_SOFTWARE, software.encode()[:509]) if software else b""
    return _message(0x0001, transaction_id, attributes)


def encode_success(transaction_id: bytes, mapped: Address, software: str = "") -> bytes:
    """The answer to a request that came from `mapped`."""
    attributes = _attribute(_XOR_MAPPED_ADDRESS, _xor_address(mapped, transaction_id))
    if software:
        attributes += _attribute(_SOFTWARE, software.encode()[:509])
    return _message(0x0101, transaction_id, attributes)


def encode_failure(transaction_id: bytes, code: int, reason: str, unknown: tuple[int, ...] = ()) -> bytes:
    """An error response; `unknown` lists the attributes of a 420."""
    attributes = _attribute(_ERROR_CODE, bytes((0, 0, code // 100, code % 100)) + reason.encode()[:509])
    if unknown:
        attributes += _attribute(_UNKNOWN_ATTRIBUTES, b"".join(kind.to_bytes(2, "big") for kind in unknown))
    return _message(0x0111, transaction_id, attributes)


def answer(data: bytes, source: Address, software: str = "") -> bytes | None:
    """What to send back for these octets from `source`; None for anything but a well-formed Binding request."""
    try:
        message = decode(data)
    except StunError:
        return None
    if not isinstance(message, Request):
        return None
    if message.unknown:
        return encode_failure(message.transaction_id, 420, "Unknown Attribute", message.unknown)
    return encode_success(message.transaction_id, source, software)


def decode(data: bytes) -> Message:
    """The STUN message in `data`; raises StunError when it is malformed, damaged or no Binding."""
    if not is_stun(data):
        raise StunError("not STUN")
    kind = int.from_bytes(data[:2], "big")
    length = int.from_bytes(data[2:4], "big")
    if length % 4 or len(data) != _HEADER + length:
        raise StunError("wrong length")
    if kind & 0x3EEF != _BINDING:
        raise StunError(f"not a Binding: type {kind:#06x}")
    transaction_id = data[8:20]
    attributes = _attributes(data)
    match kind:
        case 0x0001:
            unknown = [name for name, _ in attributes if name < 0x8000 and name not in _DISREGARDED]
            return Request(transaction_id, tuple(dict.fromkeys(unknown)))
        case 0x0011:
            return Indication(transaction_id)
        case 0x0101:
            return Success(transaction_id, _mapped(attributes, transaction_id), _software(attributes))
        case _:
            return _failure(attributes, transaction_id)


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    """Type and value of the attributes in front of FINGERPRINT, which is checked if it is there."""
    found: list[tuple[int, bytes]] = []
    at = _HEADER
    while at < len(data):
        # The header and the padding are multiples of four, so there is room for one attribute header.
        kind = int.from_bytes(data[at : at + 2], "big")
        end = at + 4 + int.from_bytes(data[at + 2 : at + 4], "big")
        if end > len(data):
            raise StunError("attribute too long")
        if kind == _FINGERPRINT:
            # It is the last attribute (RFC 8489 §14.7): its value runs to the end.
            if data[at + 4 :] != _fingerprint(data[:at]):
                raise StunError("wrong FINGERPRINT")
            return found
        found.append((kind, data[at + 4 : end]))
        at = (end + 3) & ~3
    return found


def _mapped(attributes: list[tuple[int, bytes]], transaction_id: bytes) -> Address:
    plain: Address | None = None
    for kind, value in attributes:
        if kind == _XOR_MAPPED_ADDRESS:
            pad = _COOKIE + transaction_id
            return _address(value[:2] + _xor(value[2:4], pad) + _xor(value[4:], pad))
        if kind == _MAPPED_ADDRESS and plain is None:
            plain = _address(value)  # servers older than RFC 5389
    if plain is None:
        raise StunError("response without a mapped address")
    return plain


def _software(attributes: list[tuple[int, bytes]]) -> str:
    return next((value[:64].decode("latin-1") for kind, value in attributes if kind == _SOFTWARE), "")


def _failure(attributes: list[tuple[int, bytes]], transaction_id: bytes) -> Failure:
    code, reason = 0, ""
    unknown: tuple[int, ...] = ()
    for kind, value in attributes:
        if kind == _ERROR_CODE and len(value) >= 4 and not code:
            code, reason = (value[2] & 7) * 100 + value[3], value[4:].decode("utf-8", "replace")
        elif kind == _UNKNOWN_ATTRIBUTES:
            unknown = tuple(int.from_bytes(value[at : at + 2], "big") for at in range(0, len(value) - 1, 2))
    if not 300 <= code <= 699:
        raise StunError("error response without a good ERROR-CODE")
    return Failure(transaction_id, code, reason, unknown)


def _address(value: bytes) -> Address:
    """MAPPED-ADDRESS (RFC 8489 §14.1)."""
    if len(value) == 8 and value[1] == 1:
        return str(IPv4Address(value[4:])), int.from_bytes(value[2:4], "big")
    if len(value) == 20 and value[1] == 2:
        return str(IPv6Address(value[4:])), int.from_bytes(value[2:4], "big")
    raise StunError("bad mapped address")


def _xor_address(address: Address, transaction_id: bytes) -> bytes:
    """XOR-MAPPED-ADDRESS (RFC 8489 §14.2)."""
    host, port = ip_address(address[0].partition("%")[0]), address[1]
    pad = _COOKIE + transaction_id
    family = b"\0\1" if host.version == 4 else b"\0\2"
    return family + _xor(port.to_bytes(2, "big"), pad) + _xor(host.packed, pad)


def _xor(value: bytes, pad: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(value, pad, strict=False))


def _attribute(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)


def _message(kind: int, transaction_id: bytes, attributes: bytes) -> bytes:
    if len(transaction_id) != 12:
        raise ValueError("a transaction id has 12 octets")
    length = len(attributes) + 8  # with FINGERPRINT (RFC 8489 §14.7)
    text = kind.to_bytes(2, "big") + length.to_bytes(2, "big") + _COOKIE + transaction_id + attributes
    return text + _attribute(_FINGERPRINT, _fingerprint(text))


def _fingerprint(text: bytes) -> bytes:
    return (zlib.crc32(text) ^ _FINGERPRINT_XOR).to_bytes(4, "big")
