"""Next hops: the longest prefix wins, and prefixes that change nothing are left out."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from sipnemo.shell.routes import Hop, Route, Routes, Rule, next_hop

MAIN, UPLINK = 254, 1001
LO = "lo"


def route(prefix: str, gateway: str = "", table: int = MAIN, metric: int = 0, ifindex: int = 1) -> Route:
    return Route(table, metric, Hop(ip_network(prefix), ifindex, gateway))


def routes(*known: Route, rules: tuple[Rule, ...] = ()) -> Routes:
    return Routes(known, (*rules, Rule(32766, None, MAIN)), {})


@pytest.mark.parametrize(
    ("known", "destination", "gateway"),
    [
        pytest.param([route("0.0.0.0/0", "10.1.0.2")], "192.0.2.1", "10.1.0.2", id="default"),
        pytest.param([route("0.0.0.0/0", "10.1.0.2"), route("10.1.0.0/24")], "10.1.0.9", "", id="on-link"),
        pytest.param([route("0.0.0.0/0"), route("10.1.0.0/24", "10.1.0.3")], "10.1.0.9", "10.1.0.3", id="longest"),
        pytest.param([route("10.1.0.0/24")], "192.0.2.1", None, id="none"),
        pytest.param([route("::/0", "fe80::1")], "192.0.2.1", None, id="other family"),
        pytest.param(
            [route("0.0.0.0/0", "10.1.0.2", metric=5), route("0.0.0.0/0", "10.1.0.3", metric=1)],
            "192.0.2.1",
            "10.1.0.3",
            id="lowest metric",
        ),
        pytest.param([route("0.0.0.0/0", "10.1.0.2", ifindex=99)], "192.0.2.1", None, id="other interface"),
    ],
)
def test_next_hop(known: list[Route], destination: str, gateway: str | None) -> None:
    hop = next_hop(routes(*known).hops("10.1.0.1", LO), destination)
    assert (hop.gateway if hop else None) == gateway


def test_the_table_that_the_rules_choose_for_the_source_comes_first() -> None:
    known = (route("0.0.0.0/0", "10.1.0.2"), route("0.0.0.0/0", "10.1.0.3", UPLINK, metric=9))
    rules = (Rule(100, ip_network("10.1.0.1/32"), UPLINK),)
    assert [hop.gateway for hop in routes(*known, rules=rules).hops("10.1.0.1", LO)] == ["10.1.0.3"]
    assert [hop.gateway for hop in routes(*known, rules=rules).hops("10.1.0.7", LO)] == ["10.1.0.2"]
    assert [hop.gateway for hop in routes(*known, rules=rules).hops("10.1.0.1", "")] == ["10.1.0.3"]


def test_another_table_s_route_is_used_only_when_the_device_is_named() -> None:
    known = routes(route("0.0.0.0/0", "10.1.0.3", UPLINK))
    assert [hop.gateway for hop in known.hops("10.1.0.1", LO)] == ["10.1.0.3"]
    assert known.hops("10.1.0.1", "") == ()


def test_a_prefix_that_changes_nothing_is_left_out() -> None:
    known = routes(
        route("0.0.0.0/0", "10.1.0.2"), route("192.0.2.0/24", "10.1.0.2"), route("192.0.2.128/25", "10.1.0.3")
    )
    assert [str(hop.prefix) for hop in known.hops("10.1.0.1", LO)] == ["192.0.2.128/25", "0.0.0.0/0"]


def test_nothing_leaves_by_an_interface_that_does_not_exist() -> None:
    assert routes(route("0.0.0.0/0", "10.1.0.2")).hops("10.1.0.1", "no-such-if") == ()
