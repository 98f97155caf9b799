"""Uplinks of mixed address family: which path a call takes, and which it must not (R9)."""

from __future__ import annotations

from typing import Any

import pytest

from sim.fleet import HOME, OUTSIDE, Fleet
from sim.moody import MoodyPhone
from sipnemo.roles.endpoint import host_text
from sipnemo.roles.phone.node import Phone, User
from sipnemo.sip.flow import Local
from sipnemo.sip.message import Request
from sipnemo.sip.transaction import ServerTransaction

HOME6 = "2001:db8:ff::1"
SIX = "2001:db8:2::7"
FAR = {"out1": f"{OUTSIDE}101", "out2": f"{OUTSIDE}102"}
FAR6 = {"out1": "2001:db8:ff::101", "out2": "2001:db8:ff::102"}


class NamedPhone(MoodyPhone):
    """A far end whose Contact is a name that both families resolve."""

    def contact(self, user: User, local: Local) -> str:
        """The Contact, by name."""
        return super().contact(user, local).replace(host_text(local.host), f"{user.account.name}.example")


class DualStack(NamedPhone):
    """One that also has media addresses of both, and answers an offer by the family it is made in."""

    def on_request(self, server: ServerTransaction, request: Request, now: float) -> None:
        """Change to the family of an offer."""
        if request.method == "INVITE" and request.to_tag:
            family = "IP6" if "c=IN IP6" in request.body else "IP4"
            for (call_id, _), call in self.calls.items():
                if call_id == request.call_id and call.media is not None:
                    host = self.media_host if family == "IP4" else FAR6[call.user.account.name]
                    call.media._host = host
        super().on_request(server, request, now)


def mixed(*, dual: bool = True, named: bool = True, uplinks: int = 2, six: int = 1, **options: Any) -> Fleet:
    """The usual scene, with IPv6 on one uplink; the home server has both families, and so have far ends if `dual`."""
    options.setdefault("homes", (HOME, HOME6))
    fleet = Fleet(uplinks=uplinks, **options)
    for name in FAR:
        station = fleet.phones[name]
        station.node.__class__ = DualStack if dual else NamedPhone if named else Phone
        station.host.listen(Local("UDP", FAR6[name], 5060))
        world = fleet.world
        world.network.hosts[FAR6[name]] = station.host
        world.names |= {(f"{name}.example", "A"): ((FAR[name],),), (f"{name}.example", "AAAA"): ((FAR6[name],),)}
        if dual:
            world.phones.twins |= {FAR[name]: FAR6[name], FAR6[name]: FAR[name]}
    fleet.readdress(six, SIX)
    fleet.world.run(8.0)
    assert SIX in {path.address for path in fleet.nms_node.paths.on()}
    return fleet


def invites(fleet: Fleet) -> int:
    return sum(wave.invites for wave in fleet.nms_node.handover.waves)


@pytest.mark.req("R9", "RO-10")
def test_a_far_end_with_both_families_follows_from_one_to_the_other_and_back() -> None:
    fleet = mixed()
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(1.0)
    fleet.cut(0)
    fleet.world.run(1.0)
    assert fleet.uplink_of(out) == fleet.uplink_of(into) == SIX
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")
    fleet.mend(0)
    fleet.world.run(8.0)
    fleet.silence(1)
    fleet.world.run(1.0)
    assert fleet.uplink_of(out) == fleet.uplink_of(into) == "198.51.100.7"
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")
    assert [wave.row(each=False)["ended"] for wave in fleet.nms_node.handover.waves if wave.calls] == [
        {"verified": 2}
    ] * 2
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R9", "R2")
@pytest.mark.parametrize("refusal", [(488,), (606,), ()], ids=["488", "606", "answers by IPv4"])
def test_a_far_end_without_the_other_family_waits_for_its_own(refusal: tuple[int, ...]) -> None:
    fleet = mixed(dual=False)
    call_id = fleet.call("in1", "out1")
    fleet.world.run(1.0)
    if refusal:
        fleet.refuse_moves("out1", *refusal)
    fleet.cut(0)
    fleet.world.run(12.0)
    assert fleet.up("in1", call_id)
    assert fleet.up("out1", call_id)
    assert invites(fleet) == 1  # asked once, not again and again
    fleet.mend(0)
    assert fleet.world.run_until(lambda: fleet.uplink_of(call_id) == "198.51.100.7", 15.0)
    fleet.world.run(0.5)
    assert fleet.talking(call_id, "in1", "out1")
    fleet.hang_up("out1")
    fleet.world.run(0.5)
    assert not fleet.up("in1", call_id)
    fleet.hang_up_everything()
    assert fleet.leaks() == []


@pytest.mark.req("R9")
def test_a_path_of_the_far_ends_family_comes_before_a_better_one_of_the_other() -> None:
    fleet = mixed(uplinks=3)
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(1.0)
    fleet.cut(0)
    fleet.world.run(1.0)
    assert fleet.uplink_of(out) == fleet.uplink_of(into) == "198.18.0.7"
    assert fleet.talking(out, "in1", "out1")
    assert fleet.talking(into, "in2", "out2")
    assert invites(fleet) == 2


@pytest.mark.req("R9")
def test_media_of_a_dead_path_leave_by_one_of_the_same_family_at_once() -> None:
    fleet = mixed(uplinks=3)
    call_id = fleet.call("in1", "out1")
    group = next(iter(fleet.nms_node.calls.open)).path.group
    fleet.world.run(1.0)
    began = fleet.world.now
    fleet.cut(0)
    path = fleet.world.path_of(fleet.nms, group)
    assert path is not None
    assert path.source == "198.18.0.7"
    fleet.world.run(1.0)
    assert fleet.stream("out1", call_id).lost_between(began, began + 0.9, fleet.stream("in1", call_id)) == 0


@pytest.mark.req("R9", "MH-11")
def test_a_call_that_comes_by_a_path_of_the_wrong_family_is_answered_from_another() -> None:
    fleet = mixed(dual=False, six=0)
    call_id = fleet.call("out1", "in1")
    assert fleet.uplink_of(call_id) == "203.0.113.7"
    assert fleet.talking(call_id, "in1", "out1")


@pytest.mark.req("R9")
def test_a_far_end_whose_signalling_has_one_family_is_never_asked_by_the_other() -> None:
    fleet = mixed(dual=False, named=False)
    call_id = str(fleet.phones["in1"].command("call", uri=f"sip:out1@{FAR['out1']}")["call_id"])
    assert fleet.world.run_until(lambda: fleet.up("in1", call_id) and fleet.up("out1", call_id), 5.0)
    fleet.world.run(1.0)
    fleet.cut(0)
    fleet.world.run(10.0)
    assert invites(fleet) == 0
    assert fleet.up("in1", call_id)
    fleet.mend(0)
    assert fleet.world.run_until(lambda: fleet.talking(call_id, "in1", "out1", span=0.5), 15.0)


@pytest.mark.req("R9")
def test_a_home_server_known_by_two_literals_needs_no_dns() -> None:
    fleet = mixed(
        homes=(HOME6, HOME), nms={"home": f"sip:{HOME}", "home_addresses": (HOME, HOME6)}, hs={"aliases": (HOME,)}
    )
    assert all(flow.registered for flow in fleet.nms_node.home.flows.values())
    assert len(fleet.nms_node.paths.on()) == 2
