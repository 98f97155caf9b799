"""Phones whose server, or every path to it, is away: what their bindings outlive, they do not notice (R12)."""

from __future__ import annotations

import pytest

from sim.fleet import INSIDE, Fleet
from sim.moody_home import Home, register

pytestmark = pytest.mark.req("R12")


def failures(fleet: Fleet) -> list[dict[str, object]]:
    return [body for name in fleet.inside_names for body in fleet.phones[name].notices("register-failed")]


def outage(fleet: Fleet, home: Home, kind: str) -> None:
    """What comes between the phones and their server."""
    match kind:
        case "killed":
            home.station.kill()
        case "no path":
            fleet.cut(0)
            fleet.cut(1)
        case "silent paths":
            fleet.silence(0)
            fleet.silence(1)
        case _:
            status = int(kind)
            home.refuse_phones((status, ("Retry-After: 10",)))


def end_of_outage(fleet: Fleet, home: Home, kind: str) -> None:
    match kind:
        case "killed":
            home.station.restart()
        case "no path" | "silent paths":
            fleet.mend(0)
            fleet.mend(1)
        case _:
            home.refuse_phones(None)


@pytest.mark.parametrize("kind", ["killed", "no path", "silent paths", "503", "504"])
@pytest.mark.parametrize("begins", [30.0, 230.0])
def test_an_outage_that_the_binding_outlives_is_not_noticed(kind: str, begins: float) -> None:
    fleet = Fleet(inside=2, outside=1, phone={"expires": 300})
    home = Home(fleet)
    registered = sum(len(fleet.phones[name].notices("registered")) for name in fleet.inside_names)
    fleet.world.run(begins)
    outage(fleet, home, kind)
    fleet.world.run(60.0)
    end_of_outage(fleet, home, kind)
    fleet.world.run(60.0)
    assert failures(fleet) == []
    assert sum(len(fleet.phones[name].notices("registered")) for name in fleet.inside_names) == registered
    fleet.world.run(300.0)
    call_id = fleet.call("out1", "in1")
    assert fleet.talking(call_id, "in1", "out1")


def test_no_phone_is_told_of_more_than_its_server_has_granted() -> None:
    fleet = Fleet(inside=1, outside=1, phone={"expires": 300})
    home = Home(fleet)
    fleet.world.run(200.0)
    (mn,) = fleet.nms_node.bindings.by_token.values()
    ends = mn.expires_at
    home.station.kill()
    fleet.world.run(ends - fleet.world.now + 60.0)
    assert failures(fleet), "when the binding has run out, the phone must know"
    assert not fleet.nms_node.bindings.by_token
    home.station.restart()
    fleet.world.run(120.0)
    fleet.call("out1", "in1")


def test_a_phone_that_comes_in_an_outage_is_told_the_truth_and_gets_in_afterwards() -> None:
    fleet = Fleet(inside=1, outside=1)
    home = Home(fleet)
    home.station.kill()
    fleet.world.run(10.0)
    fleet.inside_names.append("in2")
    fleet.hs_settings.users["in2"] = "pw-in2"  # type: ignore[index]
    fleet.add_phone("in2", "10.7.0.50", f"sip:{INSIDE}")
    fleet.world.run(60.0)
    assert fleet.phones["in2"].notices("register-failed")
    assert not fleet.phones["in2"].notices("registered")
    home.station.restart()
    fleet.world.run(120.0)
    assert fleet.phones["in2"].notices("registered")
    fleet.call("out1", "in2")


@pytest.mark.parametrize("kind", ["killed", "no path"])
def test_an_early_promise_is_kept_when_the_server_is_back(kind: str) -> None:
    fleet = Fleet(inside=0, outside=1, nms={"register": "early"})
    home = Home(fleet)
    fleet.hs_settings.users["in1"] = ""  # type: ignore[index]
    home.restart()
    fleet.world.run(20.0)
    outage(fleet, home, kind)
    fleet.world.run(20.0)
    fleet.inside_names.append("in1")
    fleet.add_phone("in1", "10.7.0.50", f"sip:{INSIDE}", expires=3600)
    fleet.world.run(5.0)
    assert fleet.phones["in1"].notices("registered")
    fleet.world.run(100.0)
    end_of_outage(fleet, home, kind)
    home.believe("in1")
    assert fleet.world.run_until(lambda: home.knows("in1"), within=90.0)
    assert not fleet.nms_node.registering.owed


def test_a_slow_server_still_challenges_its_phones() -> None:
    fleet = Fleet(inside=1, outside=1, phone={"expires": 300})
    home = Home(fleet)
    home.slow(8.0)
    fleet.world.run(1200.0)
    assert failures(fleet) == []
    register(fleet, "in1")
    fleet.world.run(60.0)
    assert home.knows("in1")
