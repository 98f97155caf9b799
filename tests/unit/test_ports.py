"""Media ports: pairs, never the same too soon, never foretold."""

from __future__ import annotations

import pytest

from sipnemo.media.ports import PortPool


def pool(first: int = 20000, last: int = 20009, quarantine_after: float = 30.0, seed: str = "seed") -> PortPool:
    return PortPool(first, last, quarantine_after, seed)


def take_all(ports: PortPool, now: float = 0.0) -> list[int]:
    taken = []
    while (port := ports.allocate(now)) is not None:
        taken.append(port)
    return taken


@pytest.mark.parametrize(
    ("first", "last", "pairs"),
    [
        pytest.param(20000, 20009, [20000, 20002, 20004, 20006, 20008], id="whole pairs"),
        pytest.param(20001, 20009, [20002, 20004, 20006, 20008], id="an odd first port has no partner"),
        pytest.param(20000, 20008, [20000, 20002, 20004, 20006], id="an even last port has no partner"),
        pytest.param(65534, 65535, [65534], id="the last pair there is"),
        pytest.param(1, 3, [2], id="the first pair there is"),
    ],
)
def test_a_pool_holds_the_pairs_of_its_range(first: int, last: int, pairs: list[int]) -> None:
    ports = pool(first, last)
    assert ports.size == len(pairs)
    assert sorted(take_all(ports)) == pairs


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, 10), (10, 9), (20000, 65536), (20001, 20002), (20000, 20000)],
    ids=["port 0", "backwards", "beyond 65535", "no whole pair", "half a pair"],
)
def test_a_range_without_a_pair_is_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="ports"):
        pool(first, last)


def test_an_exhausted_pool_says_so_and_counts() -> None:
    ports = pool()
    assert len(take_all(ports)) == 5
    assert ports.allocate(1.0) is None
    assert (ports.used, ports.exhausted) == (5, 2)


def test_a_released_pair_rests_before_it_is_used_again() -> None:
    ports = pool(20000, 20001)
    port = ports.allocate(0.0)
    assert port == 20000
    ports.release(port, 10.0)
    assert (ports.used, ports.resting) == (0, 1)
    assert ports.allocate(39.9) is None
    assert ports.allocate(40.0) == 20000


def test_a_release_of_what_is_not_allocated_is_counted_and_harmless() -> None:
    ports = pool()
    port = ports.allocate(0.0)
    assert port is not None
    ports.release(port, 0.0)
    ports.release(port, 0.0)
    ports.release(4711, 0.0)
    assert ports.misreleased == 2
    assert len(take_all(ports, 100.0)) == 5


def test_the_order_follows_from_the_seed_and_from_nothing_else() -> None:
    def order(seed: str) -> list[int]:
        return take_all(pool(20000, 20999, seed=seed))

    assert order("one") == order("one")
    assert order("one") != order("two")
    assert order("one") != sorted(order("one"))
