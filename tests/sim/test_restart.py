"""The gateway is started anew: phones are reached at once, and none of them has noticed (R16)."""

from __future__ import annotations

from typing import Any

import pytest

from sim.fleet import INSIDE, Fleet
from sim.moody_home import Home, register
from sipnemo.roles.nms.phone.kept import PHONES
from sipnemo.roles.nms.settings import IfaceSettings

pytestmark = pytest.mark.req("R16")


def restart(fleet: Fleet, inside: str = INSIDE) -> None:
    """kill -9 and a new start; the kernel tells what there is."""
    fleet.nms.kill()
    fleet.nms.restart()
    fleet.world.inside_link(fleet.nms, "lan0", inside)
    for uplink in fleet.uplinks:
        fleet.world.tell(fleet.nms, uplink)


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_phones_are_called_at_once_after_a_restart(transport: str) -> None:
    fleet = Fleet(transport=transport)
    registered = {name: len(fleet.phones[name].notices("registered")) for name in fleet.inside_names}
    fleet.world.network.keep = True
    restart(fleet)
    fleet.world.run(1.0)
    asked = [data for *_, data in fleet.world.network.sent if data.startswith(b"REGISTER") and b"in1" in data]
    assert not asked
    call_id = fleet.call("out1", "in1")
    assert fleet.talking(call_id, "in1", "out1")
    back = fleet.call("in2", "out2")
    assert fleet.talking(back, "in2", "out2")
    assert {name: len(fleet.phones[name].notices("registered")) for name in fleet.inside_names} == registered
    fleet.hang_up_everything()
    assert fleet.leaks() == []


def test_a_phone_that_registers_before_the_first_answer_from_home_gets_no_second_contact() -> None:
    fleet = Fleet(inside=1, outside=1)
    home = Home(fleet)
    home.slow(3.0)
    restart(fleet)
    fleet.world.run(0.2)
    register(fleet, "in1")
    fleet.world.run(20.0)
    record = home.node.bindings.find("in1")
    assert record is not None
    assert len(record.bindings) == 1


def test_what_has_run_out_or_was_taken_back_is_not_restored() -> None:
    fleet = Fleet(inside=2, outside=1)
    assert len(fleet.nms.rows[PHONES]) == 2
    for row in fleet.nms.rows[PHONES].values():
        if "in1" in row["uri"]:
            row["expires_at"] -= 7200.0
    restart(fleet)
    fleet.world.run(1.0)
    assert [mn.uri for mn in fleet.nms_node.bindings.by_token.values()] == ["sip:in2@home.example"]
    assert len(fleet.nms.rows[PHONES]) == 1


def test_a_clock_that_has_lost_its_time_keeps_no_phone_for_ever() -> None:
    fleet = Fleet(inside=1, outside=1)
    for row in fleet.nms.rows[PHONES].values():
        row["expires_at"] += 1e9  # it is 1995 now
    restart(fleet)
    fleet.world.run(1.0)
    (mn,) = fleet.nms_node.bindings.by_token.values()
    assert mn.expires_at - fleet.world.now <= 3605.0


@pytest.mark.parametrize("row", [None, [], {}, {"flow": 1}, {"uri": "x", "contact": "y", "flow": [[1], [2]]}, "x", 7])
def test_a_row_that_cannot_be_read_is_dropped_and_told(row: Any) -> None:
    fleet = Fleet(inside=1, outside=1)
    fleet.nms.rows[PHONES]["bad"] = row
    fleet.nms.rows["home"] = {"sip:fleet7@home.example": row}
    restart(fleet)
    fleet.world.run(3.0)
    assert "bad" not in fleet.nms.rows[PHONES]
    assert [log.text for _, log in fleet.nms.logs if log.level == "error" and "cannot be read" in log.text]
    fleet.call("out1", "in1")


def test_an_inside_that_has_another_address_reaches_its_phones_from_there() -> None:
    fleet = Fleet(inside=1, outside=1, nms={"iface": fleet_iface()})
    restart(fleet, "10.7.0.2")
    fleet.world.run(1.0)
    (mn,) = fleet.nms_node.bindings.by_token.values()
    assert mn.flow.local.host == "10.7.0.2"
    call_id = fleet.call("out1", "in1")
    assert fleet.talking(call_id, "in1", "out1")


def fleet_iface() -> Any:
    """An I-face known by its name."""
    return IfaceSettings(interface="lan0")
