from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipnemo.sip.stun import (
    Failure,
    Indication,
    Request,
    StunError,
    Success,
    answer,
    decode,
    encode_failure,
    encode_request,
    encode_success,
    is_stun,
)

ID = bytes(range(12))

# RFC 5769 §2.1 to §2.3: sample request, IPv4 response and IPv6 response, with the padding of the document.
RFC_5769_ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")
RFC_5769_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae"
    "802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"
    "80280004e57a3bcf"
)
RFC_5769_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
    "80280004c07d4c96"
)
RFC_5769_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae"
    "8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed41"
    "80280004c8fb0b4c"
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(RFC_5769_REQUEST, Request(RFC_5769_ID), id="request"),
        pytest.param(RFC_5769_IPV4, Success(RFC_5769_ID, ("192.0.2.1", 32853), "test vector"), id="IPv4"),
        pytest.param(
            RFC_5769_IPV6,
            Success(RFC_5769_ID, ("2001:db8:1234:5678:11:2233:4455:6677", 32853), "test vector"),
            id="IPv6",
        ),
        pytest.param(bytes.fromhex("001100002112a442") + ID, Indication(ID), id="indication, bare"),
        pytest.param(
            bytes.fromhex("0101000c2112a442") + ID + bytes.fromhex("000100080001138ac0000201"),
            Success(ID, ("192.0.2.1", 5002)),
            id="MAPPED-ADDRESS of an old server",
        ),
    ],
)
def test_messages_of_others(data: bytes, message: object) -> None:
    assert is_stun(data)
    assert decode(data) == message


@pytest.mark.parametrize("source", [("192.0.2.1", 5060), ("2001:db8::1", 65535), ("fe80::1", 1)])
def test_a_request_is_answered_with_the_address_it_came_from(source: tuple[str, int]) -> None:
    response = answer(encode_request(ID, "sipnemo"), source)
    assert response is not None
    assert decode(response) == Success(ID, source)
    assert answer(response, source) is None


def test_an_attribute_that_must_be_understood_is_refused_by_name() -> None:
    request = bytes.fromhex("000100102112a442") + ID + bytes.fromhex("00030004000000027f01000100000000")
    assert decode(request) == Request(ID, (0x0003, 0x7F01))
    response = answer(request, ("192.0.2.1", 5060))
    assert response is not None
    assert decode(response) == Failure(ID, 420, "Unknown Attribute", (0x0003, 0x7F01))


def test_other_error_codes_pass() -> None:
    assert decode(encode_failure(ID, 500, "Server Error")) == Failure(ID, 500, "Server Error")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\r\n\r\n", id="RFC 5626 ping"),
        pytest.param(b"OPTIONS sip:x SIP/2.0\r\n\r\n", id="SIP"),
        pytest.param(bytes.fromhex("000100002112a443") + ID, id="other cookie"),
        pytest.param(RFC_5769_IPV4[:-1], id="cut off"),
        pytest.param(RFC_5769_IPV4 + b"\0\0\0\0", id="too long"),
        pytest.param(RFC_5769_IPV4[:-1] + b"\0", id="wrong fingerprint"),
        pytest.param(bytes.fromhex("000300002112a442") + ID, id="not a Binding"),
        pytest.param(bytes.fromhex("000100042112a442") + ID + bytes.fromhex("80220008"), id="attribute too long"),
        pytest.param(bytes.fromhex("010100002112a442") + ID, id="success without address"),
        pytest.param(bytes.fromhex("011100002112a442") + ID, id="error without code"),
        pytest.param(
            bytes.fromhex("010100082112a442") + ID + bytes.fromhex("0020000400011234"), id="address too short"
        ),
    ],
)
def test_what_is_no_binding(data: bytes) -> None:
    with pytest.raises(StunError):
        decode(data)
    assert answer(data, ("192.0.2.1", 1)) is None


def test_a_transaction_id_has_twelve_octets() -> None:
    with pytest.raises(ValueError, match="12"):
        encode_request(b"short")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64), st.sampled_from([0x0001, 0x0011, 0x0101, 0x0111]))
def test_noise_is_refused_not_crashed_on(noise: bytes, kind: int) -> None:
    noise = noise[: len(noise) & ~3]
    data = kind.to_bytes(2, "big") + len(noise).to_bytes(2, "big") + b"\x21\x12\xa4\x42" + ID + noise
    with contextlib.suppress(StunError):
        decode(data)
    answer(data, ("192.0.2.1", 1))


@settings(max_examples=50, deadline=None)
@given(st.ip_addresses(), st.integers(0, 65535), st.binary(min_size=12, max_size=12))
def test_every_address_survives(host: object, port: int, transaction_id: bytes) -> None:
    message = decode(encode_success(transaction_id, (str(host).partition("%")[0], port)))
    assert message == Success(transaction_id, (str(host).partition("%")[0], port))
