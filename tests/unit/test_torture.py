"""The 49 messages of RFC 4475, each with the verdict that the RFC asks for: of the parser, and of every node.

A gateway or home server passes on what only the far end can judge; a phone is that far end. `…` in a table cell is
short for the same verdict as the parser's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sim.fleet import INSIDE, Fleet
from sipnemo.roles.hs.contacts import wanted_contacts
from sipnemo.roles.hs.node import HomeServer
from sipnemo.roles.hs.settings import HsSettings
from sipnemo.roles.node import Environment, Received, Send
from sipnemo.sip.errors import ParseError, SipError
from sipnemo.sip.flow import Address, Flow, Local
from sipnemo.sip.message import Request
from sipnemo.sip.parser import parse

MESSAGES = Path(__file__).parent.parent / "torture" / "rfc4475"
OK, DROP, ON = "accepted", "dropped", "passed on"
SOURCE = ("192.0.2.77", 5060)
SINK = "192.0.2.200"
"The address of every name that is not of this scene."
CALL_ID = re.compile(rb"^(?:Call-ID|i)[ \t]*:\s*(\S+)", re.I | re.M)
STRANGER = 403
"What a gateway says to requests from outside that come from nobody it knows."


class Verdict(NamedTuple):
    """What becomes of one message: a status, or OK, DROP, ON."""

    name: str
    section: str
    parser: int | str
    inside: int | str | None = None
    "A gateway, from a phone; None: as the parser."
    outside: int | str | None = None
    "A gateway, from a stranger."
    home: int | str | None = None
    "A home server of example.com."
    phone: int | str | None = None


TABLE = [
    # 3.1.1 Valid messages
    Verdict("wsinv", "3.1.1.1", OK, 481, 481, 407, 481),  # within a dialog that nobody here knows
    Verdict("intmeth", "3.1.1.2", OK, ON, STRANGER, 404, 405),
    Verdict("esc01", "3.1.1.3", OK, ON, STRANGER, 403, 200),
    Verdict("escnull", "3.1.1.4", OK, ON, STRANGER, 401, 405),
    Verdict("esc02", "3.1.1.5", OK, ON, STRANGER, 407, 405),  # RE%47IST%45R is not REGISTER
    Verdict("lwsdisp", "3.1.1.6", OK, ON, STRANGER, 407, 200),
    Verdict("longreq", "3.1.1.7", OK, ON, STRANGER, 480, 200),
    Verdict("dblreq", "3.1.1.8", OK, ON, STRANGER, 401, 405),  # what follows in the datagram is noise
    Verdict("semiuri", "3.1.1.9", OK, ON, STRANGER, 404, 200),
    Verdict("transports", "3.1.1.10", OK, ON, STRANGER, 407, 200),
    Verdict("mpart01", "3.1.1.11", OK, ON, STRANGER, 407, 200),
    Verdict("unreason", "3.1.1.12", OK, DROP, DROP, DROP, DROP),  # responses to nothing we have asked
    Verdict("noreason", "3.1.1.13", OK, DROP, DROP, DROP, DROP),
    # 3.1.2 Invalid messages
    Verdict("badinv01", "3.1.2.1", 400),
    Verdict("clerr", "3.1.2.2", 400),
    Verdict("ncl", "3.1.2.3", 400),
    Verdict("scalar02", "3.1.2.4", 400),
    Verdict("scalarlg", "3.1.2.5", DROP),
    Verdict("quotbal", "3.1.2.6", 400),
    Verdict("ltgtruri", "3.1.2.7", 400),
    Verdict("lwsruri", "3.1.2.8", 400),
    Verdict("lwsstart", "3.1.2.9", 400),
    Verdict("trws", "3.1.2.10", 400),
    Verdict("escruri", "3.1.2.11", 400),
    Verdict("baddate", "3.1.2.12", OK, ON, STRANGER, 480, 200),  # a Date nobody needs may be wrong
    Verdict("regbadct", "3.1.2.13", OK, 400, STRANGER, 401, 405),
    Verdict("badaspec", "3.1.2.14", 400),
    Verdict("baddn", "3.1.2.15", 400),
    Verdict("badvers", "3.1.2.16", 505),
    Verdict("mismatch01", "3.1.2.17", 400),
    Verdict("mismatch02", "3.1.2.18", 400),
    Verdict("bigcode", "3.1.2.19", DROP),
    # 3.2 Transaction layer semantics
    Verdict("badbranch", "3.2.1", OK, ON, STRANGER, 407, 200),
    # 3.3 Application-layer semantics
    Verdict("insuf", "3.3.1", 400),
    Verdict("unkscm", "3.3.2", OK, 416, STRANGER, 416, 416),
    Verdict("novelsc", "3.3.3", OK, 416, STRANGER, 416, 416),
    Verdict("unksm2", "3.3.4", OK, ON, STRANGER, 401, 405),
    Verdict("bext01", "3.3.5", OK, 420, 420, 420, 420),
    Verdict("invut", "3.3.6", OK, ON, STRANGER, 480, 415),
    Verdict("regaut01", "3.3.7", OK, ON, STRANGER, 401, 405),
    Verdict("multi01", "3.3.8", 400),
    Verdict("mcl01", "3.3.9", 400),
    Verdict("bcast", "3.3.10", OK, DROP, DROP, DROP, DROP),
    Verdict("zeromf", "3.3.11", OK, 483, 483, 483, 200),
    Verdict("cparam01", "3.3.12", OK, ON, STRANGER, 401, 405),
    Verdict("cparam02", "3.3.13", OK, ON, STRANGER, 401, 405),
    Verdict("regescrt", "3.3.14", OK, ON, STRANGER, 401, 405),
    Verdict("sdp01", "3.3.15", OK, ON, STRANGER, 480, 406),
    # 3.4 Backward compatibility
    Verdict("inv2543", "3.4.1", OK, ON, STRANGER, 404, 200),
]


def octets(name: str) -> bytes:
    return (MESSAGES / f"{name}.dat").read_bytes()


class Everywhere(dict[tuple[str, str], Any]):
    """A DNS in which every name has the same address."""

    def get(self, key: tuple[str, str], default: Any = None) -> Any:
        return ((SINK,),) if key[1] == "A" and key not in self else super().get(key, default)


class Scene:
    """A fleet that a message can be thrown at; what it answers the source, and whether it passes it on."""

    def __init__(self) -> None:
        self.fleet = Fleet(inside=1, outside=1)
        self.fleet.world.names = Everywhere(self.fleet.world.names)
        self.fleet.world.network.keep = True

    def throw(self, station: str, local: Local, source: Address, data: bytes) -> int | str:
        network = self.fleet.world.network
        network.sent.clear()
        self.fleet.world.stations[station].handle(Received(data, Flow(local, source)))
        self.fleet.world.run(0.4)
        call_id = CALL_ID.search(data)
        passed: int | str = DROP
        for _, own, remote, sent in network.sent:
            if sent[0] < 4 or (call_id is not None and call_id[1] not in sent):
                continue  # a STUN probe, or a message thrown before
            if sent.startswith(b"SIP/2.0 "):
                status = int(sent[8:11])
                if passed == DROP and status >= 200 and own[0] == local.host and remote[0] == source[0]:
                    passed = status
            elif own[0] != local.host and self.fleet.nms.host is self.fleet.world.network.hosts[own[0]]:
                passed = ON
        self.fleet.world.run(75.0)  # several messages have the same branch
        return passed


@pytest.fixture(scope="module")
def inner() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def outer() -> Scene:
    return Scene()


def test_every_message_of_the_rfc_is_in_the_table() -> None:
    assert sorted(path.stem for path in MESSAGES.glob("*.dat")) == sorted(verdict.name for verdict in TABLE)


rows = pytest.mark.parametrize("verdict", TABLE, ids=[f"{verdict.section} {verdict.name}" for verdict in TABLE])


@rows
def test_parser(verdict: Verdict) -> None:
    got: int | str = OK
    try:
        parse(octets(verdict.name))
    except ParseError as error:
        got = error.status if error.message is not None else DROP
    assert got == verdict.parser


@rows
def test_a_gateway_that_gets_it_from_a_phone(verdict: Verdict, inner: Scene) -> None:
    got = inner.throw(
        "nms", inner.fleet.nms.host.sockets["UDP", INSIDE, 5060], ("10.7.0.99", 5060), octets(verdict.name)
    )
    assert got == (verdict.parser if verdict.inside is None else verdict.inside)


@rows
def test_a_gateway_that_gets_it_from_a_stranger(verdict: Verdict, outer: Scene) -> None:
    local = outer.fleet.nms_node.paths.all[0].locals["UDP"]
    got = outer.throw("nms", local, SOURCE, octets(verdict.name))
    assert got == (verdict.parser if verdict.outside is None else verdict.outside)


@rows
def test_a_phone(verdict: Verdict, outer: Scene) -> None:
    got = outer.throw("out1", Local("UDP", "192.0.2.101", 5060), SOURCE, octets(verdict.name))
    assert got == (verdict.parser if verdict.phone is None else verdict.phone)


@rows
def test_a_home_server(verdict: Verdict) -> None:
    local = Local("UDP", "192.0.2.1", 5060)
    settings = HsSettings(
        domain="example.com", listen=(local,), users={"user": "secret", "j.user": "secret"}, aliases=("example.org",)
    )
    node = HomeServer(settings, Environment("torture"))
    sent = [
        action.data
        for action in node.handle(Received(octets(verdict.name), Flow(local, SOURCE)), 100.0)
        if isinstance(action, Send)
    ]
    got: int | str = DROP
    for data in sent:
        got = int(data[8:11]) if data.startswith(b"SIP/2.0 ") else ON
    assert got == (verdict.parser if verdict.home is None else verdict.home)


@pytest.mark.parametrize(
    ("name", "contacts"),
    [
        pytest.param("cparam01", ["sip:+19725552222@gw1.example.net"], id="unknown parameter of Contact"),
        pytest.param("cparam02", ["sip:+19725552222@gw1.example.net"], id="unknown parameter of the URI"),
        pytest.param("regescrt", ["sip:user@example.com"], id="escaped header kept"),
        pytest.param("regbadct", 400, id="a question mark needs angle brackets"),
    ],
)
def test_contacts_that_a_registrar_reads(name: str, contacts: list[str] | int) -> None:
    request = parse(octets(name))
    assert isinstance(request, Request)
    got: list[str] | int
    try:
        got = [contact.text.partition(";")[0].partition("?")[0] for contact in wanted_contacts(request) or ()]
    except SipError as error:
        got = error.status
    assert got == contacts


def test_nothing_is_left_of_all_that(inner: Scene, outer: Scene) -> None:
    for scene in (inner, outer):
        scene.fleet.hang_up_everything()
        assert scene.fleet.leaks(260.0) == []
