"""After a move every request of either end arrives, and so does its answer (R6)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sim.fleet import Fleet
from sim.moody import MoodyPhone

SECOND = "203.0.113.7"


def re_invite(fleet: Fleet, call_id: str, name: str, other: str) -> None:
    fleet.phones[name].command("hold", call_id=call_id)
    fleet.world.run(1.0)
    assert fleet.phones[name].notices("held")
    assert fleet.disagreements(call_id, name, other) == []
    fleet.phones[name].command("resume", call_id=call_id)
    fleet.world.run(1.0)
    assert fleet.talking(call_id, name, other)


def answered(method: str) -> Callable[[Fleet, str, str, str], None]:
    def ask(fleet: Fleet, call_id: str, name: str, other: str) -> None:
        fleet.phones[name].command(method, call_id=call_id)
        fleet.world.run(1.0)
        phone = fleet.phones[name].node
        assert isinstance(phone, MoodyPhone)
        assert phone.heard == [200]

    return ask


def refer(fleet: Fleet, call_id: str, name: str, other: str) -> None:
    third = "in2" if other == "out1" else "out2"
    fleet.phones[name].command("refer", call_id=call_id, uri=f"sip:{third}@home.example")
    fleet.world.run(3.0)
    assert fleet.phones[other].notices("calling"), "the one who was asked calls"
    assert fleet.phones[third].notices("incoming")


def bye(fleet: Fleet, call_id: str, name: str, other: str) -> None:
    fleet.hang_up(name, call_id)
    fleet.world.run(1.0)
    ended = fleet.ended(other, call_id)
    assert ended is not None
    assert ended["by"] == "them"


@pytest.mark.req("R6")
@pytest.mark.parametrize("record_route", ["home", "contact"])
@pytest.mark.parametrize("transport", ["UDP", "TCP"])
@pytest.mark.parametrize(("caller", "callee"), [("in1", "out1"), ("out1", "in1")], ids=["out", "in"])
@pytest.mark.parametrize("moves", [1, 3])
def test_requests_of_either_end_arrive(record_route: str, transport: str, caller: str, callee: str, moves: int) -> None:
    fleet = Fleet(transport=transport, nms={"record_route": record_route})
    call_id = fleet.call(caller, callee)
    fleet.world.run(1.0)
    for number in range(moves):
        fleet.cut(number % 2)
        fleet.world.run(2.0)
        fleet.mend(number % 2)
        fleet.world.run(8.0)
    assert fleet.uplink_of(call_id) == SECOND
    asks = {"re-INVITE": re_invite, "INFO": answered("info"), "UPDATE": answered("update")}
    for name, other in (("in1", "out1"), ("out1", "in1")):
        for ask in asks.values():
            phone = fleet.phones[name].node
            assert isinstance(phone, MoodyPhone)
            phone.heard.clear()
            ask(fleet, call_id, name, other)
    assert fleet.offers_broken() == []


@pytest.mark.req("R6")
@pytest.mark.parametrize("record_route", ["home", "contact"])
@pytest.mark.parametrize("transport", ["UDP", "TCP"])
@pytest.mark.parametrize("ask", [bye, refer], ids=["BYE", "REFER"])
@pytest.mark.parametrize("name", ["in1", "out1"])
def test_what_ends_or_hands_over_a_call_arrives(
    record_route: str, transport: str, ask: Callable[[Fleet, str, str, str], None], name: str
) -> None:
    fleet = Fleet(transport=transport, nms={"record_route": record_route})
    call_id = fleet.call("in1", "out1")
    fleet.world.run(1.0)
    fleet.cut(0)
    fleet.world.run(2.0)
    assert fleet.uplink_of(call_id) == SECOND
    ask(fleet, call_id, name, "out1" if name == "in1" else "in1")
    fleet.hang_up_everything()
    assert fleet.leaks() == []
