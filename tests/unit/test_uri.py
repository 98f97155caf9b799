from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipnemo.sip.uri import (
    Uri,
    UriError,
    address_of_record,
    equivalent,
    escape_user,
    host_port,
    is_address,
    parse,
    unescape,
)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("sip:alice@atlanta.com", Uri("sip", "alice", host="atlanta.com")),
        (
            "sip:alice:secretword@atlanta.com;transport=tcp",
            Uri("sip", "alice", "secretword", "atlanta.com", None, ";transport=tcp"),
        ),
        (
            "sips:alice@atlanta.com?subject=project%20x&priority=urgent",
            Uri("sips", "alice", None, "atlanta.com", None, "", "subject=project%20x&priority=urgent"),
        ),
        (
            "sip:+1-212-555-1212:1234@gateway.com;user=phone",
            Uri("sip", "+1-212-555-1212", "1234", "gateway.com", None, ";user=phone"),
        ),
        ("sips:1212@gateway.com", Uri("sips", "1212", None, "gateway.com")),
        ("sip:alice@192.0.2.4", Uri("sip", "alice", None, "192.0.2.4")),
        (
            "sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com",
            Uri("sip", "", None, "atlanta.com", None, ";method=REGISTER", "to=alice%40atlanta.com"),
        ),
        ("sip:alice;day=tuesday@atlanta.com", Uri("sip", "alice;day=tuesday", None, "atlanta.com")),
        ("sip:[2001:db8::10]:5070;lr", Uri("sip", "", None, "[2001:db8::10]", 5070, ";lr")),
        ("sip:a@[::ffff:192.0.2.10]", Uri("sip", "a", None, "[::ffff:192.0.2.10]")),
        ("sip:home.example;mn=a1-b2;lr=on", Uri("sip", "", None, "home.example", None, ";mn=a1-b2;lr=on")),
        ("sip:sip_proxy.internal.:5060", Uri("sip", "", None, "sip_proxy.internal.", 5060)),
        (
            "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
            Uri(
                "sip",
                "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*",
                "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)",
                "example.com",
            ),
        ),
        (
            "sip:sip%3Auser%40example.com@company.com;other-param=summit",
            Uri("sip", "sip%3Auser%40example.com", None, "company.com", None, ";other-param=summit"),
        ),
        ("sip:null-%00-null@example.com", Uri("sip", "null-%00-null", None, "example.com")),
        ("tel:+1-201-555-0123;phone-context=x", Uri("tel", "+1-201-555-0123", param_text=";phone-context=x")),
        ("nobodyKnowsThisScheme:totallyopaquecontent", Uri("nobodyknowsthisscheme", opaque="totallyopaquecontent")),
        ("soap.beep://192.0.2.103:3002", Uri("soap.beep", opaque="//192.0.2.103:3002")),
        ("urn:service:sos", Uri("urn", opaque="service:sos")),
    ],
)
def test_parse_and_print(text: str, uri: Uri) -> None:
    assert parse(text) == uri
    scheme, colon, rest = text.partition(":")
    assert str(uri) == scheme.lower() + colon + rest
    assert uri.is_sip == (uri.scheme in ("sip", "sips"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sip",
        "sip:",
        ":x",
        "sip:user@",
        "sip:@host",
        "sip:a@b@c",
        "sip:user@example.com; transport=udp",
        "sip:user @example.com",
        " sip:user@example.com",
        "sip:user@example.com\r\n",
        "sip:user@example.com;=x",
        "sip:user@example.com;;lr",
        "sip:user@example.com:",
        "sip:user@example.com:65536",
        "sip:user@example.com:5060a",
        "sip:user@example.com?",
        "sip:us%zzer@example.com",
        "sip:user@example.com;x=%4",
        "sip:user@300.1.1.1",
        "sip:user@192.0.2",
        "sip:user@[::1",
        "sip:user@[1:2:3]",
        "sip:user@2001:db8::1",
        "sip:[fe80::1%25eth0]",
        "<sip:user@example.com>",
        "sip:us\xe9r@example.com",
        "tel:",
        "tel:abc xyz",
        "tel:+",
    ],
)
def test_what_is_no_uri(text: str) -> None:
    with pytest.raises(UriError):
        parse(text)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
        ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("sip:a@[2001:DB8::0:1]", "sip:a@[2001:db8::1]"),
        ("sip:a%3ab@x.org", "sip:a%3Ab@x.org"),
        ("tel:+1-201-555-0123", "tel:+1(201)5550123"),
        ("SIP:a@x.org", "sip:a@x.org"),
        ("urn:x:y", "URN:x:y"),
    ],
)
def test_equivalent(a: str, b: str) -> None:
    assert equivalent(parse(a), parse(b))
    assert equivalent(parse(b), parse(a))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;newparam=6"),
        ("sip:a@x.org", "sips:a@x.org"),
        ("sip:a@x.org", "sip:x.org"),
        ("sip:a:p@x.org", "sip:a@x.org"),
        ("sip:a:p@x.org", "sip:a:q@x.org"),
        ("sip:a%40b@x.org", "sip:a%2540b@x.org"),
        ("sip:a@x.org;maddr=192.0.2.1", "sip:a@x.org"),
        ("sip:a@x.org", "sip:a@x.org;user=phone"),
        ("tel:+1-201-555-0123", "tel:+1-201-555-0124"),
        ("tel:911;phone-context=a", "tel:911"),
        ("urn:x:y", "urn:x:z"),
    ],
)
def test_not_equivalent(a: str, b: str) -> None:
    assert not equivalent(parse(a), parse(b))
    assert not equivalent(parse(b), parse(a))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sip:a@x.org", ("x.org", 5060)),
        ("sips:a@x.org", ("x.org", 5061)),
        ("sip:a@x.org;transport=tls", ("x.org", 5061)),
        ("sip:a@[2001:db8::1]:5080", ("2001:db8::1", 5080)),
    ],
)
def test_host_port(text: str, expected: tuple[str, int]) -> None:
    assert host_port(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "aor"),
    [
        ("sip:%61lice:pw@Home.Example:5080;user=phone?x=y", "sip:alice@home.example"),
        ("sip:Home.Example", "sip:home.example"),
        ("tel:+1-201", "tel:+1201"),
        ("urn:service:sos", "urn:service:sos"),
    ],
)
def test_address_of_record(text: str, aor: str) -> None:
    assert address_of_record(parse(text)) == aor


def test_parameters_are_read_and_replaced() -> None:
    uri = parse("sip:a@x.org;Transport=Tcp;lr;mn=7")
    assert uri.params == {"transport": "Tcp", "lr": "", "mn": "7"}
    assert (uri.param("lr"), uri.param("mn"), uri.param("ob"), uri.transport) == ("", "7", None, "TCP")
    assert str(uri.with_param("mn", "8").without_params("transport")) == "sip:a@x.org;lr;mn=8"
    assert str(parse("sip:x.org").with_param("lr").with_host("2001:db8::1", 5070)) == "sip:[2001:db8::1]:5070;lr"
    assert parse("sip:x.org").without_params("lr") == parse("sip:x.org")


def test_headers_are_unescaped() -> None:
    assert parse("sip:x.org?Route=%3Csip:y.org%3E&a=").headers == [("Route", "<sip:y.org>"), ("a", "")]


@pytest.mark.parametrize(
    ("host", "literal"),
    [("192.0.2.1", True), ("::1", True), ("x.org", False), ("300.1.1.1", False), ("", False), ("node7", False)],
)
def test_is_address(host: str, literal: bool) -> None:
    assert is_address(host) == literal


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=0xFF), min_size=1, max_size=10))
def test_any_octets_can_be_a_user(user: str) -> None:
    uri = parse(f"sip:{escape_user(user)}@x.org")
    assert unescape(uri.user) == user
    assert parse(str(uri)) == uri
    assert equivalent(uri, uri)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="sip:a@.[]1%;=?&", max_size=30))
def test_noise_is_refused_not_crashed_on_and_what_is_read_prints_the_same(noise: str) -> None:
    for text in (noise, "sip:" + noise):
        with contextlib.suppress(UriError):
            uri = parse(text)
            assert parse(str(uri)) == uri
            assert equivalent(uri, uri._replace(param_text=uri.param_text))
            address_of_record(uri)
