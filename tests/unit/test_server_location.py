from __future__ import annotations

from collections import Counter
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipnemo.sip.server_location import Located, Locator, Question, Records, Search, Target, srv_order

ALL = ("UDP", "TCP", "TLS")
Zone = dict[tuple[str, str], Records]


def a(*addresses: str) -> Records:
    return tuple(("A", (address,)) for address in addresses)


def aaaa(*addresses: str) -> Records:
    return tuple(("AAAA", (address,)) for address in addresses)


def srv(*records: tuple[int, int, int, str]) -> Records:
    return tuple(("SRV", record) for record in records)


def naptr(*records: tuple[int, int, str, str, str]) -> Records:
    return tuple(("NAPTR", record) for record in records)


def locator() -> Locator:
    return Locator(lambda: 0.5)


def find(
    zone: Zone,
    host: str = "example.com",
    port: int | None = None,
    transport: str = "",
    scheme: str = "sip",
    supported: tuple[str, ...] = ALL,
    families: tuple[int, ...] = (4, 6),
    using: Locator | None = None,
    now: float = 0.0,
    asked: list[Question] | None = None,
) -> list[Target]:
    """Run a search against a zone to its end."""
    log = [] if asked is None else asked
    step = (using or locator()).locate(host, port, transport, scheme, supported, families, now)
    if isinstance(step, Located):
        return list(step.targets)
    search, pending = step, list(step.questions)
    while pending:
        question = pending.pop(0)
        log.append(question)
        assert len(log) < 100, "never ends"
        result = search.feed(question, zone.get(question, ()), 60.0, now)
        if isinstance(result, Located):
            assert not pending
            return list(result.targets)
        pending += result
    raise AssertionError("no questions left, and nothing located")


ONE: Zone = {("example.com", "A"): a("192.0.2.1")}
FULL: Zone = {
    ("example.com", "NAPTR"): naptr(
        (50, 50, "s", "SIPS+D2T", "_sips._tcp.example.com."),
        (90, 50, "s", "SIP+D2T", "_sip._tcp.example.com"),
        (100, 50, "S", "sip+d2u", "_sip._udp.Example.com"),
        (10, 1, "s", "SIP+D2S", "_sip._sctp.example.com"),
        (10, 1, "u", "E2U+sip", "x.example.com"),
    ),
    ("_sips._tcp.example.com", "SRV"): srv((0, 1, 5061, "s1.example.com")),
    ("_sip._tcp.example.com", "SRV"): srv((0, 1, 5060, "s2.example.com"), (0, 3, 5060, "s1.example.com")),
    ("_sip._udp.example.com", "SRV"): srv((1, 0, 5070, "s2.example.com."), (0, 0, 5060, "S1.example.com")),
    ("s1.example.com", "A"): a("192.0.2.1"),
    ("s2.example.com", "A"): a("192.0.2.2", "192.0.2.3"),
    ("s2.example.com", "AAAA"): aaaa("2001:db8::2"),
}


@pytest.mark.parametrize(
    ("host", "port", "transport", "scheme", "targets"),
    [
        ("192.0.2.1", None, "", "sip", [Target("UDP", "192.0.2.1", 5060)]),
        ("192.0.2.1", 5080, "TCP", "sip", [Target("TCP", "192.0.2.1", 5080)]),
        ("192.0.2.1", None, "TLS", "sip", [Target("TLS", "192.0.2.1", 5061)]),
        ("2001:db8::1", None, "", "sips", [Target("TLS", "2001:db8::1", 5061)]),
        ("2001:db8::1", None, "TCP", "sips", [Target("TLS", "2001:db8::1", 5061)]),
        ("192.0.2.1", None, "UDP", "sips", []),
        ("192.0.2.1", None, "SCTP", "sip", []),
        ("", None, "", "sip", []),
        ("a..b", None, "", "sip", []),
        ("x" * 64 + ".example", None, "", "sip", []),
        ("x." * 127 + "example", None, "", "sip", []),
    ],
)
def test_addresses_and_impossible_hosts_need_no_question(
    host: str, port: int | None, transport: str, scheme: str, targets: list[Target]
) -> None:
    assert locator().locate(host, port, transport, scheme, ALL, (4, 6), 0.0) == Located(tuple(targets))


def test_an_address_of_a_family_that_is_not_usable_leads_nowhere() -> None:
    assert locator().locate("2001:db8::1", None, "", "sip", ALL, (4,), 0.0) == Located(())


@pytest.mark.parametrize(
    ("wanted", "zone", "targets"),
    [
        pytest.param(
            {},
            FULL,
            [
                Target("TLS", "192.0.2.1", 5061),
                Target("TCP", "192.0.2.1", 5060),
                Target("TCP", "192.0.2.2", 5060),
                Target("TCP", "192.0.2.3", 5060),
                Target("TCP", "2001:db8::2", 5060),
                Target("UDP", "192.0.2.1", 5060),
                Target("UDP", "192.0.2.2", 5070),
                Target("UDP", "192.0.2.3", 5070),
                Target("UDP", "2001:db8::2", 5070),
            ],
            id="NAPTR, SRV, addresses",
        ),
        pytest.param({"scheme": "sips"}, FULL, [Target("TLS", "192.0.2.1", 5061)], id="sips is TLS only"),
        pytest.param(
            {"supported": ("UDP",), "families": (6, 4)},
            FULL,
            [
                Target("UDP", "192.0.2.1", 5060),
                Target("UDP", "2001:db8::2", 5070),
                Target("UDP", "192.0.2.2", 5070),
                Target("UDP", "192.0.2.3", 5070),
            ],
            id="only what we support, IPv6 first",
        ),
        pytest.param(
            {"transport": "UDP", "families": (6,)}, FULL, [Target("UDP", "2001:db8::2", 5070)], id="transport given"
        ),
        pytest.param({"port": 5999}, ONE, [Target("UDP", "192.0.2.1", 5999)], id="port given"),
        pytest.param({"port": 5999, "transport": "TCP"}, ONE, [Target("TCP", "192.0.2.1", 5999)], id="both given"),
        pytest.param({"port": 5999, "scheme": "sips"}, ONE, [Target("TLS", "192.0.2.1", 5999)], id="port, sips"),
        pytest.param({}, ONE, [Target("UDP", "192.0.2.1", 5060)], id="neither NAPTR nor SRV"),
        pytest.param({"scheme": "sips"}, ONE, [Target("TLS", "192.0.2.1", 5061)], id="neither, sips"),
        pytest.param({"transport": "TCP"}, ONE, [Target("TCP", "192.0.2.1", 5060)], id="no SRV for transport"),
        pytest.param({"supported": ("TCP",)}, ONE, [Target("TCP", "192.0.2.1", 5060)], id="without UDP"),
        pytest.param({"host": "EXAMPLE.com."}, ONE, [Target("UDP", "192.0.2.1", 5060)], id="case and dot"),
        pytest.param({}, {}, [], id="no such name"),
        pytest.param(
            {},
            {("_sip._tcp.example.com", "SRV"): srv((0, 0, 5, "192.0.2.9"))},
            [Target("TCP", "192.0.2.9", 5)],
            id="SRV without NAPTR, to an address",
        ),
        pytest.param({}, {**ONE, ("_sip._udp.example.com", "SRV"): srv((0, 0, 0, "."))}, [], id="SRV '.': not offered"),
        pytest.param(
            {},
            {
                ("_sip._udp.example.com", "SRV"): srv((0, 0, 0, ".")),
                ("_sip._tcp.example.com", "SRV"): srv((0, 0, 5060, "192.0.2.7")),
            },
            [Target("TCP", "192.0.2.7", 5060)],
            id="SRV '.' for UDP only",
        ),
        pytest.param(
            {},
            {**ONE, ("example.com", "NAPTR"): naptr((1, 1, "a", "SIP+D2T", "example.com"))},
            [Target("TCP", "192.0.2.1", 5060)],
            id="NAPTR straight to addresses",
        ),
        pytest.param(
            {},
            {
                **ONE,
                ("example.com", "NAPTR"): naptr((1, 1, "s", "SIP+D2U", "example.com"), (1, 2, "s", "SIP+D2U", ".")),
            },
            [Target("UDP", "192.0.2.1", 5060)],
            id="NAPTR in a circle",
        ),
        pytest.param(
            {"transport": "UDP"},
            {("_sip._udp.example.com", "SRV"): srv((0, 0, 5060, "_sip._udp.example.com"))},
            [],
            id="SRV in a circle",
        ),
    ],
)
def test_rfc_3263(wanted: dict[str, object], zone: Zone, targets: list[Target]) -> None:
    assert find(zone, **wanted) == targets  # type: ignore[arg-type]


def test_an_explicit_port_asks_for_addresses_only_and_all_at_once() -> None:
    search = locator().locate("example.com", 5999, "", "sip", ALL, (4, 6), 0.0)
    assert isinstance(search, Search)
    assert search.questions == (Question("example.com", "A"), Question("example.com", "AAAA"))


def test_a_repeated_call_needs_no_question_until_the_answers_are_old() -> None:
    using = locator()
    first: list[Question] = []
    again: list[Question] = []
    later: list[Question] = []
    expected = find(FULL, using=using, asked=first)
    assert find(FULL, using=using, asked=again, now=59.0) == expected
    assert find(FULL, using=using, asked=later, now=61.0) == expected
    assert (len(first), again, later) == (8, [], first)


def test_forgetting_asks_again() -> None:
    using = locator()
    asked: list[Question] = []
    find(ONE, port=5, using=using)
    using.forget()
    find(ONE, port=5, using=using, asked=asked)
    assert len(asked) == 2


def test_last_good_targets_serve_while_dns_is_away() -> None:
    using = locator()
    expected = find(ONE, port=5, using=using)
    assert find({}, port=5, using=using, now=1000.0) == expected
    assert find({}, port=5, using=using, now=90000.0) == []


def test_answers_that_expire_during_a_slow_search_still_serve_it() -> None:
    using = locator()
    search = using.locate("example.com", 5, "", "sip", ALL, (4, 6), 0.0)
    assert isinstance(search, Search)
    assert search.feed(search.questions[0], a("192.0.2.1"), 0.0, 0.0) == ()
    assert search.feed(search.questions[1], (), 0.0, 500.0) == Located((Target("UDP", "192.0.2.1", 5),))


def test_strange_late_and_repeated_answers_are_ignored() -> None:
    search = locator().locate("example.com", 5, "", "sip", ALL, (4,), 0.0)
    assert isinstance(search, Search)
    (question,) = search.questions
    assert search.feed(Question("evil.example", "A"), a("192.0.2.66"), 60.0, 0.0) == ()
    mixed: Records = (("CNAME", ("other.example",)), ("A", ("192.0.2.1",)))
    assert search.feed(question, mixed, 60.0, 0.0) == Located((Target("UDP", "192.0.2.1", 5),))
    assert search.feed(question, a("192.0.2.66"), 60.0, 0.0) == ()


def test_memory_is_bounded() -> None:
    using = Locator(lambda: 0.0, memory=10)
    for i in range(50):
        find({(f"h{i}", "A"): a("192.0.2.1")}, host=f"h{i}", port=5, using=using)
    assert len(using._answers) <= 10
    assert len(using._found) <= 10


def test_weights_are_followed_and_priorities_are_strict() -> None:
    numbers = count()
    records = [(1, 60, 1, "big"), (1, 20, 1, "small"), (1, 0, 1, "zero"), (0, 0, 1, "first."), (2, 9, 1, "last")]
    firsts: Counter[str] = Counter()
    for _ in range(810):
        order = [host for _, host in srv_order(records, lambda: (next(numbers) * 0.6180339887) % 1.0)]
        assert (order[0], order[-1], len(order)) == ("first", "last", 5)
        firsts[order[1]] += 1
    assert 550 < firsts["big"] < 650
    assert 160 < firsts["small"] < 240
    assert 0 < firsts["zero"] < 30


NAMES = st.sampled_from(["example.com", "_sip._udp.example.com", "_sip._tcp.example.com", "h1", "h2", ".", "192.0.2.1"])
ZONES = st.fixed_dictionaries(
    {},
    optional={
        ("example.com", "NAPTR"): st.lists(
            st.tuples(
                st.integers(0, 2),
                st.integers(0, 2),
                st.sampled_from("sau"),
                st.sampled_from(["SIP+D2U", "SIP+D2T"]),
                NAMES,
            ),
            max_size=6,
        ).map(lambda records: naptr(*records)),
        **{
            (name, "SRV"): st.lists(
                st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 65535), NAMES), max_size=30
            ).map(lambda records: srv(*records))
            for name in ("example.com", "_sip._udp.example.com", "_sip._tcp.example.com", "h1")
        },
        **{(name, "A"): st.just(a("192.0.2.1", "192.0.2.2")) for name in ("example.com", "h1", "h2")},
    },
)


@settings(max_examples=150, deadline=None)
@given(ZONES, st.sampled_from(["", "UDP", "TCP"]))
def test_every_zone_comes_to_an_end(zone: Zone, transport: str) -> None:
    targets = find(zone, transport=transport)
    assert len(targets) == len(set(targets))
    assert all(target.transport in ALL and 0 < target.port < 65536 for target in targets)
