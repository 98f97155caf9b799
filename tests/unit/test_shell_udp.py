"""UDP sockets on loopback: exchange, ICMP errors, addresses in use."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import closing

import pytest

from sipnemo.roles.node import Input, Link, Received, Send, SendFailed
from sipnemo.shell.udp import Udp
from sipnemo.sip.flow import Flow, Local


def free_port(host: str = "127.0.0.1") -> int:
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_of_any_size_go_both_ways(host: str) -> None:
    async def story() -> None:
        seen: list[Input] = []
        udp = Udp(seen.append)
        one, two = Local("UDP", host, free_port(host)), Local("UDP", host, free_port(host))
        udp.listen(one)
        udp.listen(two)
        big = bytes(range(256)) * 255
        udp.send(Send(big, Flow(one, (host, two.port))))
        udp.send(Send(b"", Flow(two, (host, one.port))))
        await until(lambda: len(seen) == 2)
        assert set(seen) == {
            Received(big, Flow(two, (host, one.port))),
            Received(b"", Flow(one, (host, two.port))),
        }
        udp.close()

    asyncio.run(story())


def test_probes_are_answered_before_sip_that_came_earlier_is_worked_on() -> None:
    async def story() -> None:
        seen: list[bytes] = []

        def feed(input: Input) -> None:
            assert isinstance(input, Received)
            seen.append(input.data)

        udp = Udp(feed)
        local = Local("UDP", "127.0.0.1", free_port())
        udp.listen(local)
        sip, stun = [b"INVITE %d" % number for number in range(200)], b"\x01\x01 an answer"
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as far:
            for data in (*sip, stun):
                far.sendto(data, (local.host, local.port))
        await until(lambda: len(seen) > len(sip))
        assert seen == [stun, *sip]
        udp.close()

    asyncio.run(story())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_icmp_error_names_the_flow_it_is_about(host: str) -> None:
    async def story() -> None:
        seen: list[Input] = []
        udp = Udp(seen.append)
        local = Local("UDP", host, free_port(host))
        udp.listen(local)
        dead = Flow(local, (host, free_port(host)))
        udp.send(Send(b"anyone?", dead))
        await until(lambda: seen)
        assert seen == [SendFailed(dead, "Connection refused")]
        udp.close()

    asyncio.run(story())


def test_an_error_about_one_destination_does_not_lose_a_datagram_to_another() -> None:
    async def story() -> None:
        seen: list[Input] = []
        udp = Udp(seen.append)
        local, other = Local("UDP", "127.0.0.1", free_port()), Local("UDP", "127.0.0.1", free_port())
        udp.listen(local)
        udp.listen(other)
        dead = Flow(local, ("127.0.0.1", free_port()))
        for _turn in range(3):
            udp.send(Send(b"anyone?", dead))
            udp.send(Send(b"hello", Flow(local, ("127.0.0.1", other.port))))
        await until(lambda: len(seen) == 6)
        assert sum(isinstance(input, Received) for input in seen) == 3
        assert sum(input == SendFailed(dead, "Connection refused") for input in seen) == 3
        udp.close()

    asyncio.run(story())


def test_what_cannot_be_sent_is_said_at_once() -> None:
    async def story() -> None:
        seen: list[Input] = []
        udp = Udp(seen.append)
        local = Local("UDP", "127.0.0.1", free_port())
        flow = Flow(local, ("127.0.0.1", 9))
        udp.send(Send(b"too early", flow))
        assert seen == [SendFailed(flow, "no socket is open for this address")]
        udp.listen(local)
        away = Flow(local, ("192.0.2.1", 9))  # from 127.0.0.1 there is no way out of this host
        udp.send(Send(b"nowhere", away))
        assert isinstance(seen[1], SendFailed)
        assert seen[1].flow == away
        udp.close()

    asyncio.run(story())


def test_a_port_in_use_is_reported_once_and_taken_when_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
            other.bind(("127.0.0.1", 0))
            local = Local("UDP", "127.0.0.1", other.getsockname()[1])
            udp = Udp(lambda _input: None)
            udp.listen(local)
            udp.link_changed(Link("lo", 1, True, ()))
            assert udp.open == frozenset()
        udp.link_changed(Link("lo", 1, True, ()))
        assert udp.open == {local}
        udp.close()

    asyncio.run(story())
    assert caplog.text.count("is in use by another program") == 1


def test_an_address_that_is_not_there_yet_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        seen: list[Input] = []
        udp = Udp(seen.append)
        local = Local("UDP", "198.51.100.77", 5060)
        udp.listen(local)
        flow = Flow(local, ("198.51.100.1", 5060))
        udp.send(Send(b"x", flow))
        (failed,) = seen
        assert isinstance(failed, SendFailed)
        assert "no interface has this address" in failed.reason
        udp.unlisten(local)
        udp.close()

    asyncio.run(story())


def test_sockets_of_a_re_created_interface_are_opened_again() -> None:
    async def story() -> None:
        udp = Udp(lambda _input: None)
        local = Local("UDP", "127.0.0.1", free_port(), "lo")
        udp.link_changed(Link("lo", 1, True, ()))
        udp.listen(local)
        before = udp._sockets[local]
        udp.link_changed(Link("lo", 2, True, ()))
        assert udp.open == {local}
        assert udp._sockets[local] is not before
        udp.close()

    asyncio.run(story())


def test_a_node_may_close_the_socket_it_is_being_served_from() -> None:
    async def story() -> None:
        local = Local("UDP", "127.0.0.1", free_port())
        seen: list[Input] = []

        def feed(input: Input) -> None:
            seen.append(input)
            udp.unlisten(local)

        udp = Udp(feed)
        udp.listen(local)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as far:
            for _turn in range(5):
                far.sendto(b"x", ("127.0.0.1", local.port))
        await until(lambda: seen)
        assert len(seen) == 1
        udp.close()

    asyncio.run(story())


@pytest.mark.parametrize(("wildcard", "asked"), [("0.0.0.0", "127.0.0.77"), ("::", "::1")])
def test_a_wildcard_socket_answers_from_the_address_that_was_asked(wildcard: str, asked: str) -> None:
    async def story() -> None:
        udp = Udp(lambda input: udp.send(Send(input.data, input.flow)) if isinstance(input, Received) else None)
        local = Local("UDP", wildcard, free_port(wildcard))
        udp.listen(local)
        with closing(socket.socket(socket.AF_INET6 if ":" in asked else socket.AF_INET, socket.SOCK_DGRAM)) as far:
            far.setblocking(False)
            far.bind(("::1" if ":" in asked else "127.0.0.1", 0))
            for turn in (b"one", b"two"):
                far.sendto(turn, (asked, local.port))
                async with asyncio.timeout(5):
                    data, address = await asyncio.get_running_loop().sock_recvfrom(far, 100)
                assert (data, address[:2]) == (turn, (asked, local.port))
        udp.close()

    asyncio.run(story())
