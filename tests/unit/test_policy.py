from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest

from sipnemo.nemo.egress_list import EgressEntry, Status
from sipnemo.nemo.policy import Policy, SessionView, least_load, lowest_rtt, priority, weighted

ON, OFF = Status.ON, Status.OFF
SESSION = SessionView("call-1")


def path(
    eface_id: int,
    status: Status = ON,
    load: float = 0.0,
    rank: int = 1,
    rtt: float | None = None,
    capacity: float | None = None,
    host: str = "192.0.2.1",
) -> EgressEntry:
    return EgressEntry("urn:uuid:us", eface_id, (host, 5060), status, load, rank, capacity, rtt)


def ids(entries: list[EgressEntry]) -> list[int]:
    return [entry.eface_id for entry in entries]


@pytest.mark.req("MH-6")
@pytest.mark.parametrize(
    ("policy", "paths", "order"),
    [
        pytest.param(priority, [path(1, rank=2), path(2, rank=1)], [2, 1], id="priority"),
        pytest.param(priority, [path(2), path(1)], [1, 2], id="priority, ties by E-face ID"),
        pytest.param(least_load, [path(1, load=80.0), path(2, load=10.0)], [2, 1], id="idlest first"),
        pytest.param(least_load, [path(1, OFF), path(2, load=99.0)], [2], id="broken path never chosen"),
        pytest.param(least_load, [path(1, rank=2), path(2, rank=1)], [2, 1], id="equally idle, by priority"),
        pytest.param(lowest_rtt, [path(1, rtt=0.3), path(2, rtt=0.02), path(3)], [2, 1, 3], id="quickest first"),
        pytest.param(weighted, [path(1, OFF, capacity=1e9), path(2)], [2], id="weighted, broken path"),
        pytest.param(priority, [], [], id="no path"),
    ],
)
def test_ranking(policy: Policy, paths: list[EgressEntry], order: list[int]) -> None:
    assert ids(policy(paths, SESSION)) == order


@pytest.mark.parametrize("policy", [priority, least_load, lowest_rtt, weighted])
def test_the_ranking_does_not_depend_on_the_order_of_the_list(policy: Policy) -> None:
    paths = [path(1), path(1, host="192.0.2.2"), path(2), path(3, host="2001:db8::1")]
    assert len({tuple(policy(order, SESSION)) for order in permutations(paths)}) == 1


@pytest.mark.req("R9")
@pytest.mark.parametrize("policy", [priority, least_load, lowest_rtt, weighted])
def test_only_families_that_reach_the_far_end(policy: Policy) -> None:
    paths = [path(1, host="2001:db8::1"), path(2)]
    assert ids(policy(paths, SessionView("c", families=(4,)))) == [2]
    assert ids(policy(paths, SessionView("c", families=(6,)))) == [1]


def first_choices(paths: list[EgressEntry], calls: int = 3000) -> Counter[int]:
    return Counter(weighted(paths, SessionView(f"call-{i}"))[0].eface_id for i in range(calls))


def test_weighted_spreads_sessions_by_capacity_shared_by_the_contacts_of_an_eface() -> None:
    paths = [path(1, capacity=3e6), path(1, capacity=3e6, host="192.0.2.9"), path(2, capacity=1e6)]
    assert 2100 < first_choices(paths)[1] < 2400
    assert 850 < first_choices([path(1), path(2), path(3, capacity=5e6)])[1] < 1150


def test_weighted_moves_only_the_sessions_of_the_failed_eface() -> None:
    paths = [path(1), path(2), path(3)]
    for i in range(200):
        session = SessionView(f"call-{i}")
        before = ids(weighted(paths, session))
        after = ids(weighted([path(1, OFF), path(2), path(3)], session))
        assert after == [eface for eface in before if eface != 1]
