"""A path dies at each message of a call's beginning in turn (R3, R2): the call comes about, and rings once."""

from __future__ import annotations

from typing import Any

import pytest

from sim.fleet import Fleet
from sipnemo.roles.phone.settings import MANUAL
from sipnemo.sim.network import Host
from sipnemo.sip.flow import Flow

KILLS = ("carrier", "silent")
WAYS = {"out": ("in1", "out1"), "direct": ("in1", "out1"), "in": ("out1", "in1")}
"Caller and callee; `direct` is a callee whom the gateway reaches without the home server."
WIRES = ("UDP", "TCP")
"Between the gateway and the outside."

SETUP = ["INVITE", "100 INVITE", "180 INVITE", "200 INVITE", "ACK"]
RELIABLY = ["INVITE", "180 INVITE", "PRACK", "200 PRACK", "200 INVITE", "ACK"]
CANCELLED = ["CANCEL", "200 CANCEL", "487 INVITE", "ACK"]


def scene(wire: str = "UDP", **phone: Any) -> Fleet:
    nms = {} if wire == "UDP" else {"home": "sip:home.example;transport=tcp"}
    return Fleet(inside=1, outside=1, nms=nms, phone={"answer_after": 0.3, **phone})


def dial(fleet: Fleet, way: str, wire: str = "UDP") -> str:
    caller, callee = WAYS[way]
    host = "192.0.2.101" if way == "direct" else "home.example"
    more = ";transport=tcp" if wire == "TCP" and way != "in" else ""
    return str(fleet.phones[caller].command("call", uri=f"sip:{callee}@{host}{more}")["call_id"])


def doom(fleet: Fleet, message: str, kill: str, number: int = 0) -> list[bytes]:
    """Let an uplink die with the first message of this name that takes it; `180 INVITE` answers an INVITE."""
    network, uplink = fleet.world.network, fleet.uplinks[number]
    send, lost = network.send, list[bytes]()
    start, _, method = message.rpartition(" ")
    line = f"SIP/2.0 {start} " if start else f"{method} "

    def watch(host: Host, data: bytes, flow: Flow) -> None:
        ends = (flow.local.host, flow.remote[0])
        hit = data.startswith(line.encode()) and f" {method}\r\n".encode() in data
        if not lost and hit and any(address in uplink.addresses for address in ends):
            lost.append(data)
            uplink.silent = True
            if kill == "carrier":
                fleet.world.clock.after(0.0, fleet.cut, number)
        send(host, data, flow)

    network.send = watch  # type: ignore[method-assign]
    return lost


def told(fleet: Fleet, call_id: str) -> str:
    return "\n".join(fleet.story(call_id))


def rings(fleet: Fleet, way: str) -> int:
    return len(fleet.phones[WAYS[way][1]].notices("incoming"))


def comes_about(fleet: Fleet, way: str, call_id: str, within: float = 8.0) -> None:
    """The call is answered, both ends hear each other, and it can be hung up."""
    caller, callee = WAYS[way]

    def up() -> bool:
        return fleet.up(caller, call_id) and fleet.up(callee, call_id)

    assert fleet.world.run_until(up, within), told(fleet, call_id)
    fleet.world.run(5.0)
    assert fleet.talking(call_id, caller, callee), told(fleet, call_id)
    fleet.hang_up(callee, call_id)
    fleet.world.run(2.0)
    assert fleet.ended(caller, call_id) is not None, told(fleet, call_id)
    assert fleet.leaks() == []


def at_most_rings(way: str, message: str) -> int:
    """A stranger of whom nothing was heard but 100 cannot be asked whether it rings."""
    return 2 if way == "direct" and message == "180 INVITE" else 1


every_way = pytest.mark.parametrize("way", WAYS)
every_wire = pytest.mark.parametrize("wire", WIRES)
every_kill = pytest.mark.parametrize("kill", KILLS)


@pytest.mark.req("R3", "R2")
@every_kill
@every_wire
@every_way
@pytest.mark.parametrize("message", SETUP)
def test_a_call_comes_about_whichever_message_was_lost_with_the_path(
    way: str, wire: str, message: str, kill: str
) -> None:
    fleet = scene(wire)
    lost = doom(fleet, message, kill)
    call_id = dial(fleet, way, wire)
    comes_about(fleet, way, call_id)
    assert bool(lost) == ((way, message) != ("direct", "100 INVITE"))
    assert rings(fleet, way) <= at_most_rings(way, message)


@pytest.mark.req("R3", "R2")
@every_kill
@every_wire
@every_way
@pytest.mark.parametrize("message", RELIABLY)
def test_a_reliable_ringing_comes_about_whichever_message_was_lost(
    way: str, wire: str, message: str, kill: str
) -> None:
    fleet = scene(wire, reliable=True)
    lost = doom(fleet, message, kill)
    call_id = dial(fleet, way, wire)
    comes_about(fleet, way, call_id)
    assert lost
    assert rings(fleet, way) <= at_most_rings(way, message)


@pytest.mark.req("R3", "R2")
@every_kill
@every_wire
@every_way
@pytest.mark.parametrize("message", CANCELLED)
def test_a_call_given_up_ends_everywhere_whichever_message_was_lost(
    way: str, wire: str, message: str, kill: str
) -> None:
    fleet = scene(wire, answer_after=MANUAL)
    caller, callee = WAYS[way]
    call_id = dial(fleet, way, wire)
    fleet.world.run(1.0)
    lost = doom(fleet, message, kill)
    fleet.hang_up(caller, call_id)

    def over() -> bool:
        return fleet.ended(caller, call_id) is not None and fleet.ended(callee, call_id) is not None

    assert fleet.world.run_until(over, 8.0), told(fleet, call_id)
    assert lost
    assert rings(fleet, way) == 1
    assert fleet.leaks() == []
