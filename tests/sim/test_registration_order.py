"""R11: taking an address out never takes out the one that is there now, and what the SIP-HS lists is looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim.fleet import HOME, INSIDE, INSTANCE, Fleet, nms_settings
from sim.moody_home import Home
from sipnemo.roles.hs.bindings import Binding
from sipnemo.roles.nms.node import MobilityServer
from sipnemo.roles.nms.settings import ProbeSettings
from sipnemo.roles.node import Link, Stop
from sipnemo.sim.network import Uplink
from sipnemo.sip.flow import Flow

pytestmark = pytest.mark.req("R11")

FIRST, SECOND = "sip:198.51.100.7:5060", "sip:203.0.113.7:5060"
BOTH = {1: FIRST, 2: SECOND}
HOUR = 3600.0


def fleet_and_home(**options: object) -> tuple[Fleet, Home]:
    fleet = Fleet(inside=0, outside=0, **options)  # type: ignore[arg-type]
    return fleet, Home(fleet)


def hold_back(fleet: Fleet, seconds: float, what: bytes) -> list[bytes]:
    """REGISTERs to the SIP-HS with these octets in them arrive later than others; they are listed."""
    held: list[bytes] = []
    network = fleet.world.network

    def late(data: bytes, source: tuple[str, int], target: tuple[str, int]) -> bool:
        if target[0] != HOME or not data.startswith(b"REGISTER") or what not in data:
            return False
        held.append(data)
        at_home = Flow(fleet.hs.host.sockets["UDP", HOME, 5060], source)
        fleet.world.clock.after(seconds, fleet.hs.host.receive, data, at_home)
        return True

    network.drop = late
    return held


@pytest.mark.parametrize("late", [0.5, 3.0, 40.0])
def test_a_removal_that_is_overtaken_by_the_same_addresss_return_removes_nothing(late: float) -> None:
    fleet, home = fleet_and_home()
    fleet.world.run(20.0)
    held = hold_back(fleet, late, b"expires=0")
    fleet.cut(0)
    fleet.world.run(0.2)
    assert held
    fleet.mend(0)
    fleet.world.run(0.3)
    fleet.world.network.drop = None
    fleet.world.run(late + 60.0)
    assert home.listed() == BOTH
    assert all(flow.registered for flow in fleet.nms_node.home.flows.values())
    fleet.world.run(HOUR)
    assert home.listed() == BOTH


def test_registers_in_any_order_and_any_number_end_in_what_is_there() -> None:
    for seed in range(12):
        fleet, home = fleet_and_home(seed=seed)
        for uplink in fleet.uplinks:
            uplink.jitter, uplink.duplicates, uplink.loss = 0.8, 0.4, 0.2
        for number in range(6):
            fleet.readdress(0, f"198.51.100.{20 + number}")
            fleet.world.run(0.3 + number * 0.1)
            fleet.cut(1)
            fleet.world.run(0.2)
            fleet.mend(1)
            fleet.world.run(0.5)
        for uplink in fleet.uplinks:
            uplink.jitter, uplink.duplicates, uplink.loss = 0.0, 0.0, 0.0
        fleet.world.run(90.0)
        assert home.listed() == {1: "sip:198.51.100.25:5060", 2: SECOND}, seed


def test_lost_answers_change_nothing() -> None:
    fleet, home = fleet_and_home()
    fleet.world.network.drop = lambda data, source, _target: source[0] == HOME and data.startswith(b"SIP/2.0 200")
    fleet.readdress(0, "198.51.100.99")
    fleet.world.run(10.0)
    fleet.world.network.drop = None
    fleet.world.run(120.0)
    assert home.listed() == {1: "sip:198.51.100.99:5060", 2: SECOND}
    assert all(flow.registered for flow in fleet.nms_node.home.flows.values())


def test_a_removal_names_the_old_contact_and_nothing_else() -> None:
    fleet, home = fleet_and_home()
    fleet.cut(0)
    fleet.world.run(1.0)
    (value,) = [
        value for _, request in home.asked() for value in request.values("contact") if value.endswith("expires=0")
    ]
    assert value == f'<{FIRST}>;reg-id=1;+sip.instance="<{INSTANCE}>";expires=0'
    assert home.listed() == {2: SECOND}
    assert len({request.call_id for _, request in home.asked()}) == 1
    numbers = [request.cseq for _, request in home.asked()]
    assert numbers == sorted(set(numbers))


def test_a_path_that_is_lost_while_none_works_is_reported_by_the_first_that_does() -> None:
    fleet, home = fleet_and_home()
    fleet.cut(1)
    fleet.world.run(0.01)
    fleet.cut(0)
    fleet.world.run(5.0)
    fleet.mend(1)
    fleet.world.run(5.0)
    assert home.listed() == {2: SECOND}


def test_a_drained_path_is_taken_out_and_comes_back() -> None:
    fleet, home = fleet_and_home()
    fleet.operator(1, "off")
    fleet.world.run(1.0)
    assert home.listed() == {2: SECOND}
    fleet.operator(1, "auto")
    fleet.world.run(1.0)
    assert home.listed() == BOTH


def test_a_gateway_that_ends_takes_all_its_contacts_back_in_one_go() -> None:
    fleet, home = fleet_and_home()
    fleet.operator(1, "off")
    fleet.world.run(1.0)
    fleet.operator(1, "auto")
    fleet.world.run(1.0)
    began = fleet.world.now
    fleet.nms.handle(Stop())
    fleet.world.run(2.0)
    assert fleet.nms.finished
    assert home.listed() == {}
    assert len(home.asked(began)) == 1
    fleet.world.run(HOUR)
    assert len(home.asked(began)) == 1


def test_what_an_earlier_configuration_has_left_is_taken_out() -> None:
    fleet, home = fleet_and_home()
    old = Binding("sip:198.18.9.9:5060", 300, home.node.wall(fleet.world.now) + HOUR, "old", 1, INSTANCE, 7)
    home.change(lambda bindings: bindings.update({old.key: old}))
    fleet.nms.kill()
    fleet.nms.restart()
    restart_links(fleet)
    fleet.world.run(10.0)
    assert home.listed() == BOTH


def test_a_gateway_whose_priorities_have_changed_registers_all_the_same() -> None:
    fleet, home = fleet_and_home()
    efaces = fleet.nms_settings.efaces
    fleet.nms_settings = replace(
        fleet.nms_settings, efaces=(replace(efaces[0], priority=2), replace(efaces[1], priority=1))
    )
    fleet.nms.kill()
    fleet.nms.restart()
    restart_links(fleet)
    fleet.world.run(5.0)
    assert home.listed() == BOTH
    record = home.record
    assert record is not None
    assert [binding.reg_id for binding in sorted(record.bindings.values(), key=lambda known: -known.q)] == [2, 1]


def test_a_wrong_priority_is_put_right() -> None:
    fleet, home = fleet_and_home()

    def spoil(bindings: dict[str, Binding]) -> None:
        key = f"{INSTANCE}#2"
        bindings[key] = bindings[key]._replace(q=1000)

    home.change(spoil)
    fleet.nms_node.home.flows[fleet.nms_node.paths.all[0]].register(fleet.world.now)
    fleet.world.run(2.0)
    record = home.record
    assert record is not None
    assert [binding.q for binding in record.bindings.values() if binding.reg_id == 2] == [980]


def test_a_contact_that_home_has_lost_is_registered_again() -> None:
    fleet, home = fleet_and_home()
    home.change(lambda bindings: bindings.pop(f"{INSTANCE}#2") and None)
    fleet.nms_node.home.flows[fleet.nms_node.paths.all[0]].register(fleet.world.now)
    fleet.world.run(2.0)
    assert home.listed() == BOTH


def test_two_gateways_with_one_instance_do_not_fight_and_one_line_tells() -> None:
    rarely = {"probe": ProbeSettings(probe_idle_every=20.0)}
    fleet, home = fleet_and_home(nms=rarely)
    settings = nms_settings(2, **rarely)
    other = fleet.world.add("nms2", lambda environment: MobilityServer(settings, environment))
    devices = {"wwan0": "198.51.100.70", "sat0": "203.0.113.70"}
    for index, (device, address) in enumerate(devices.items()):
        uplink = Uplink(device, address)
        fleet.world.network.hosts[address] = other.host
        fleet.world.network.uplink_of[address] = uplink
        other.handle(Link(device, 20 + index, True, (address,)))
    began = fleet.world.now
    fleet.world.run(6 * HOUR)
    told = [log for _, log in (*fleet.nms.logs, *other.logs) if "another gateway registers" in log.text]
    assert told
    assert "/instance" in told[0].text
    assert len(told) <= 2 * 7
    # Two flows of each would be refreshed 7 times an hour anyway, and answer a challenge now and then.
    assert len(home.asked(began)) <= 6 * (2 * 2 * 8) * 2


def restart_links(fleet: Fleet) -> None:
    """What the kernel tells a gateway that starts."""
    fleet.world.inside_link(fleet.nms, "lan0", INSIDE)
    for uplink in fleet.uplinks:
        fleet.world.tell(fleet.nms, uplink)
