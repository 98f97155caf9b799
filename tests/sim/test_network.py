"""What lies between two hosts of a simulated world: one direction of an uplink can fail, be slow or full alone."""

from __future__ import annotations

from random import Random

from sipnemo.sim.clock import Clock
from sipnemo.sim.network import QUEUE, Network, Uplink, Way

OURS, THEIRS = "198.51.100.7", "192.0.2.10"


def network(uplink: Uplink) -> Network:
    made = Network(Clock(), 1)
    made.uplink_of[OURS] = uplink
    return made


def test_one_direction_fails_alone() -> None:
    uplink = Uplink("wan1", OURS)
    net = network(uplink)
    uplink.down.silent = True
    assert net.ways(OURS, THEIRS)
    assert not net.ways(THEIRS, OURS)
    assert not net.arrives(THEIRS, OURS)
    uplink.silent = False  # both
    assert net.ways(THEIRS, OURS)


def test_packets_keep_their_order_if_the_line_does() -> None:
    way = Way(0.02)
    way.jitter, way.in_order = 0.05, True
    chance = Random(1)
    instants = [way.through(1.0 + n * 0.001, 100, chance) for n in range(200)]
    assert instants == sorted(instants, key=lambda at: at or 0.0)
    way.in_order = False
    instants = [way.through(2.0 + n * 0.001, 100, chance) for n in range(200)]
    assert instants != sorted(instants, key=lambda at: at or 0.0)


def test_a_full_line_delays_and_then_drops() -> None:
    way = Way(0.0)
    way.rate = 8000.0  # 1000 octets a second
    chance = Random(1)
    instants = [way.through(5.0, 100, chance) for _ in range(10)]
    taken = [at for at in instants if at is not None]
    assert [round(at - 5.0, 3) for at in taken] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert max(taken) - 5.0 <= QUEUE + 1e-9
    assert way.through(6.0, 100, chance) == 6.1
