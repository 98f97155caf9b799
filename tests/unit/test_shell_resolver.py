"""DNS against a small server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from sipnemo.roles.node import Answer, Input, Lookup
from sipnemo.shell.resolver import Resolver

ZONE = """
home.example. 60 IN NAPTR 20 10 "s" "SIP+D2T" "" _sip._tcp.home.example.
home.example. 60 IN NAPTR 10 10 "s" "SIP+D2U" "" _sip._udp.home.example.
_sip._udp.home.example. 30 IN SRV 20 0 5060 backup.home.example.
_sip._udp.home.example. 30 IN SRV 10 5 5060 one.home.example.
one.home.example. 120 IN A 192.0.2.1
one.home.example. 120 IN A 192.0.2.2
one.home.example. 120 IN AAAA 2001:db8::1
alias.example. 10 IN CNAME one.home.example.
"""
SOA = "ns.example. root.example. 1 2 3 4 77"


class Server(asyncio.DatagramProtocol):
    """Answers from the zone; counts the questions."""

    def __init__(self, silent: bool = False) -> None:
        self.asked: list[tuple[str, str]] = []
        self.silent = silent
        self.rrsets = [dns.rrset.from_text_list(*row) for row in _grouped()]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        self.asked.append((question.name.to_text(True), dns.rdatatype.to_text(question.rdtype)))
        if self.silent:
            return
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA | dns.flags.AA
        name = question.name
        for rrset in self.rrsets:
            if rrset.name == name and rrset.rdtype == dns.rdatatype.CNAME:
                response.answer.append(rrset)
                name = rrset[0].target
        response.answer += [r for r in self.rrsets if r.name == name and r.rdtype == question.rdtype]
        if not response.answer:
            response.authority.append(dns.rrset.from_text("example.", 900, "IN", "SOA", SOA))
            if not any(r.name == name for r in self.rrsets):
                response.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(response.to_wire(), addr)


def _grouped() -> list[tuple[str, int, str, str, list[str]]]:
    rows: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for line in ZONE.strip().splitlines():
        name, ttl, _class, kind, data = line.split(maxsplit=4)
        rows.setdefault((name, kind), (int(ttl), []))[1].append(data)
    return [(name, ttl, "IN", kind, data) for (name, kind), (ttl, data) in rows.items()]


class World:
    """A server, a resolver that asks it, a clock we own."""

    def __init__(self, resolver: Resolver, server: Server, answers: asyncio.Queue[Answer]) -> None:
        self.resolver = resolver
        self.server = server
        self.answers = answers
        self.now = 0.0
        self.ticket = 0

    async def ask(self, name: str, kind: str) -> tuple[tuple[tuple[Any, ...], ...], float]:
        self.ticket += 1
        self.resolver.lookup(Lookup(self.ticket, name, kind))
        assert self.answers.empty()
        answer = await asyncio.wait_for(self.answers.get(), 10)
        assert answer.ticket == self.ticket
        # The order of addresses is the server's to choose, and this one shuffles.
        addresses = kind in ("A", "AAAA")
        return (tuple(sorted(answer.records)) if addresses else answer.records), answer.ttl


def run(story: Callable[[World], Any], *, silent: bool = False, hosts: str = "/dev/null", **options: Any) -> None:
    async def outer() -> None:
        server = Server(silent)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, ("127.0.0.1", 0))
        answers: asyncio.Queue[Answer] = asyncio.Queue()

        def feed(input: Input) -> None:
            assert isinstance(input, Answer)
            answers.put_nowait(input)

        resolver = Resolver(
            feed,
            servers=["127.0.0.1"],
            port=transport.get_extra_info("sockname")[1],
            hosts=hosts,
            clock=lambda: world.now,
            **options,
        )
        world = World(resolver, server, answers)
        try:
            await story(world)
        finally:
            await resolver.close()
            transport.close()

    asyncio.run(outer())


@pytest.mark.parametrize(
    ("name", "kind", "records", "ttl"),
    [
        pytest.param(
            "home.example",
            "NAPTR",
            (
                ("NAPTR", (10, 10, "s", "SIP+D2U", "_sip._udp.home.example")),
                ("NAPTR", (20, 10, "s", "SIP+D2T", "_sip._tcp.home.example")),
            ),
            60.0,
            id="NAPTR by order",
        ),
        pytest.param(
            "_sip._udp.home.example",
            "SRV",
            (("SRV", (10, 5, 5060, "one.home.example")), ("SRV", (20, 0, 5060, "backup.home.example"))),
            30.0,
            id="SRV by priority",
        ),
        pytest.param("ONE.home.example.", "A", (("A", ("192.0.2.1",)), ("A", ("192.0.2.2",))), 120.0, id="A"),
        pytest.param("one.home.example", "AAAA", (("AAAA", ("2001:db8::1",)),), 120.0, id="AAAA"),
        pytest.param(
            "alias.example", "A", (("A", ("192.0.2.1",)), ("A", ("192.0.2.2",))), 10.0, id="CNAME: the shortest TTL"
        ),
        pytest.param("nobody.example", "A", (), 77.0, id="no such name: the SOA's minimum"),
        pytest.param("home.example", "AAAA", (), 77.0, id="no such record"),
        pytest.param("home.example", "TXT", (), 2.0, id="a kind nobody needs"),
        pytest.param("bad..name", "A", (), 2.0, id="no name at all"),
        pytest.param("x" * 70 + ".example", "A", (), 2.0, id="a label too long"),
        pytest.param("192.0.2.9", "A", (("A", ("192.0.2.9",)),), 86400.0, id="IPv4 literal"),
        pytest.param("[2001:db8::9]", "AAAA", (("AAAA", ("2001:db8::9",)),), 86400.0, id="IPv6 literal"),
        pytest.param("192.0.2.9", "SRV", (), 86400.0, id="a literal has no SRV"),
    ],
)
def test_answers(name: str, kind: str, records: tuple[tuple[Any, ...], ...], ttl: float) -> None:
    async def story(world: World) -> None:
        assert await world.ask(name, kind) == (records, ttl)

    run(story)


@pytest.mark.parametrize(("name", "ttl"), [("one.home.example", 120.0), ("nobody.example", 77.0)])
def test_answers_are_kept_for_their_time(name: str, ttl: float) -> None:
    async def story(world: World) -> None:
        records, _ttl = await world.ask(name, "A")
        world.now = ttl - 1
        assert await world.ask(name, "A") == (records, 1.0)
        assert len(world.server.asked) == 1
        world.now = ttl
        assert await world.ask(name, "A") == (records, ttl)
        assert len(world.server.asked) == 2

    run(story)


def test_one_question_for_many_who_ask() -> None:
    async def story(world: World) -> None:
        for ticket in range(5):
            world.resolver.lookup(Lookup(ticket, "one.home.example", "A"))
        answers = [await asyncio.wait_for(world.answers.get(), 10) for _turn in range(5)]
        assert [answer.ticket for answer in answers] == [0, 1, 2, 3, 4]
        assert len(world.server.asked) == 1

    run(story)


def test_the_cache_is_bounded() -> None:
    async def story(world: World) -> None:
        for number in range(20):
            await world.ask(f"n{number}.example", "A")
        assert len(world.resolver._cache) == 5

    run(story, most_names=5)


def test_a_silent_server_is_an_empty_answer_in_bounded_time() -> None:
    async def story(world: World) -> None:
        assert await world.ask("one.home.example", "A") == ((), 2.0)

    run(story, silent=True, within=0.1)


def test_the_hosts_file_comes_first_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# local\n203.0.113.1 one.home.example One  # comment\n2001:db8::7 one.home.example\nbad line\n")

    async def story(world: World) -> None:
        assert await world.ask("one.home.example", "A") == ((("A", ("203.0.113.1",)),), 5.0)
        assert await world.ask("ONE", "A") == ((("A", ("203.0.113.1",)),), 5.0)
        assert await world.ask("one.home.example", "AAAA") == ((("AAAA", ("2001:db8::7",)),), 5.0)
        assert world.server.asked == []
        hosts.write_text("203.0.113.22 one.home.example\n")
        assert await world.ask("one.home.example", "A") == ((("A", ("203.0.113.22",)),), 5.0)
        hosts.unlink()
        assert (await world.ask("one.home.example", "A"))[1] == 120.0

    run(story, hosts=str(hosts))
