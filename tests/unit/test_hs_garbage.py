"""Broken and hostile octets at the SIP-HS: nothing is raised, nothing is kept, nobody else is sent anything."""

from __future__ import annotations

import random

import pytest
from hs_world import Gateway, Home, Peer

from sipnemo.roles.node import Received

PIECES = [
    b"\r\n",
    b"\0",
    b"\xff",
    b" ",
    b",",
    b";",
    b"<",
    b">",
    b'"',
    b"*",
    b"%",
    b"@",
    b":",
    b"sip:",
    b"tel:1",
    b"[::1]",
    b"99999999999999999999",
    b"-1",
    b";lr",
    b"home.example",
    b"Route: <sip:home.example;lr>\r\n",
    b"Contact: *\r\n",
    b"Via: SIP/2.0/UDP a\r\n",
]


def mutated(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0:
                data = data[:at] + chance.choice(PIECES) + data[at:]
            case 1:
                data = data[:at] + data[at + chance.randint(1, 20) :]
            case 2:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 3:
                lines = data.split(b"\r\n")
                chance.shuffle(lines)
                data = b"\r\n".join(lines)
            case _:
                data = data[:at] + data[: chance.randrange(len(data) + 1)]
    return data


@pytest.mark.parametrize("seed", range(4))
def test_mutated_messages_do_no_harm(seed: int) -> None:
    home = Home(mode="redirect" if seed == 3 else "proxy")
    gateway = Gateway(home)
    uri = gateway.register()
    alice = Peer(home, ("192.0.2.101", 5060), name="alice", password="wonder")
    assert alice.register(f"<{uri};mn=1>", "<sip:alice@192.0.2.101>").status == 200
    caller = Peer(home, ("203.0.113.9", 5060))
    for method in ("INVITE", "MESSAGE", "OPTIONS", "REFER", "ACK", "BYE", "CANCEL"):
        caller.request(method, uri, f"Route: <{uri};lr>, <sip:home.example;lr>", "Record-Route: <sip:a@b;lr>")
        caller.request(method, "sip:alice@home.example", "Contact: <sip:c@203.0.113.9>", body="v=0\r\n")
    gateway.register(1)
    gateway.paths[0].answer(gateway.paths[0].got("MESSAGE"), 200)
    seeds = [data for peer in (caller, alice, *gateway.paths) for data in peer.sent]
    home.run(300)
    chance = random.Random(seed)
    stranger = Peer(home, ("203.0.113.66", 5060))
    for _ in range(1500):
        peer = chance.choice((caller, stranger))
        home.feed(Received(mutated(chance.choice(seeds), chance), peer.flow))
        home.now += 0.01
    hosts = {host for host, _ in home.peers}
    assert {send.flow.remote[0] for send in home.stray} <= hosts
    home.run(600)
    assert home.clean
    assert not home.node.calls
    assert not home.node._waiting
    assert gateway.register() == uri


@pytest.mark.parametrize(
    ("method", "uri", "status"),
    [
        pytest.param("REGISTER", "sip:home.example", "401", id="no credentials"),
        pytest.param("INVITE", "sip:somebody@elsewhere.example", "403", id="relaying"),
        pytest.param("INVITE", "sip:nobody@home.example", "404", id="a guessed name"),
        pytest.param("BOGUS", "sip:home.example", "405", id="a method of its own"),
    ],
)
def test_what_strangers_are_refused_takes_no_room(method: str, uri: str, status: str) -> None:
    """RFC 3261 §8.2.7, §26.3.2.4: a flood of it, from forged addresses even, is neither kept nor multiplied."""
    home = Home()
    stranger = Peer(home, ("203.0.113.66", 5060))
    for number in range(30):
        stranger.request(method, uri, call_id=f"s{number}", to="<sip:alice@home.example>" if status == "401" else "")
    assert home.clean
    home.run(5.0)
    assert stranger.starts == [status] * 30
