"""Which flows are two directions of the same stream."""

from __future__ import annotations

import pytest

from sipnemo.media.flow import INSIDE, FlowKey, MediaFlow
from sipnemo.media.flow_table import FlowTable

PHONE, CN = ("10.7.0.2", 4000), ("192.0.2.20", 6000)


def session(inside_port: int, outside_port: int) -> list[MediaFlow]:
    down = FlowKey("198.51.100.1", outside_port)
    up = FlowKey("10.7.0.1", inside_port)
    return [
        MediaFlow(up, CN, outside_port, 1, reverse=down),
        MediaFlow(down, PHONE, inside_port, INSIDE, reverse=up),
        MediaFlow(FlowKey("203.0.113.1", outside_port), PHONE, inside_port, INSIDE, reverse=up),
    ]


@pytest.mark.parametrize("ports", [(20000, 20000), (20000, 30000)], ids=["one port inside and out", "two ports"])
def test_the_other_direction_of_the_uplink_is_every_downlink(ports: tuple[int, int]) -> None:
    table = FlowTable()
    up, *down = session(*ports)
    for flow in (up, *down, *session(20002, 20002)):
        table.put(flow)
    assert table.opposite(up) == down
    for flow in down:
        assert table.opposite(flow) == [up]


def test_without_a_reverse_flow_there_is_nothing_to_correct() -> None:
    table = FlowTable()
    up, down, _other = session(20000, 20000)
    table.put(up)
    assert table.opposite(up) == []
    table.put(down)
    assert table.opposite(up._replace(reverse=None)) == []


def test_a_flow_put_twice_is_one_flow() -> None:
    table = FlowTable()
    up, *_down = session(20000, 20000)
    table.put(up)
    table.put(up._replace(source_port=30000))
    assert list(table.flows) == [up.key]
    assert table.pop(up.key) == up._replace(source_port=30000)
    assert table.pop(up.key) is None
    assert table.flows == {}
