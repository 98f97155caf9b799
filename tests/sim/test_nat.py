"""Uplinks behind NATs of every kind: calls in and out, moves, silence, and a NAT that forgets (R6, R10)."""

from __future__ import annotations

from typing import Any

import pytest

from sim.fleet import Fleet
from sipnemo.roles.nms.settings import EfaceSettings
from sipnemo.sim.nat import Nat
from sipnemo.sip.flow import Address

PUBLIC = ("203.0.113.200", "203.0.113.201")
PRIVATE = ("192.168.1.7", "192.168.2.7")
KINDS: dict[str, dict[str, Any]] = {
    "keeps ports": {},
    "other ports": {"keeps_ports": False},
    "symmetric": {"symmetric": True, "timeout": 20.0},
}


def hidden(kind: str, *numbers: int, comedia: bool = True, **options: Any) -> Fleet:
    """The usual scene with some uplinks behind NATs; far ends send media to where they come from, or not."""
    fleet = Fleet(**options)
    if comedia:
        fleet.world.phones.comedia.update(fleet.outside_names)
    for number in numbers:
        fleet.uplinks[number].nat = Nat(fleet.world.clock, PUBLIC[number], **KINDS[kind], seed=number)
        fleet.readdress(number, PRIVATE[number])
    fleet.world.run(8.0)
    return fleet


def nat_of(fleet: Fleet, number: int = 0) -> Nat:
    nat = fleet.uplinks[number].nat
    assert nat is not None
    return nat


def far_end_sees(fleet: Fleet, call_id: str) -> tuple[str, Address | None]:
    """The gateway's Contact and media address, as the far phone was told."""
    for name in fleet.outside_names:
        phone = fleet.phones[name].node
        for (known, _), call in phone.calls.items():  # type: ignore[attr-defined]
            if known == call_id:
                return call.dialog.target, fleet.stream(name, call_id).peer
    raise LookupError(call_id)


def ends_in_silence(fleet: Fleet) -> bool:
    """Whether nothing is left when everybody has hung up."""
    fleet.hang_up_everything()
    return fleet.leaks() == []


@pytest.mark.req("R6", "R10")
@pytest.mark.parametrize("kind", KINDS)
def test_calls_in_and_out_through_a_nat(kind: str) -> None:
    fleet = hidden(kind, 0, 1)
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    assert fleet.talking(out, "in1", "out1", span=2.0)
    assert fleet.talking(into, "in2", "out2", span=2.0)
    fleet.hang_up("out1")
    fleet.world.run(0.5)
    assert not fleet.up("in1", out)
    assert ends_in_silence(fleet)


@pytest.mark.req("R10")
def test_a_nat_that_keeps_ports_needs_no_help_of_the_far_end() -> None:
    fleet = hidden("keeps ports", 0, 1, comedia=False)
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    contact, peer = far_end_sees(fleet, out)
    assert contact.startswith(f"sip:{PUBLIC[0]}:5060")
    assert peer is not None
    assert peer[0] == PUBLIC[0]
    assert fleet.talking(out, "in1", "out1", span=2.0)
    assert fleet.talking(into, "in2", "out2", span=2.0)


@pytest.mark.req("R10")
@pytest.mark.parametrize(("kind", "nat", "told"), [
    ("other ports", "auto", PRIVATE[0]),
    ("other ports", "mapped", PUBLIC[0]),
    ("keeps ports", "none", PRIVATE[0]),
])  # fmt: skip
def test_what_far_ends_are_told(kind: str, nat: Any, told: str) -> None:
    eface = EfaceSettings(id=1, priority=1, interface="wwan0", nat=nat)
    fleet = hidden(kind, 0, uplinks=1, nms={"efaces": (eface,)})
    call_id = fleet.dial("in1", "out1")
    fleet.world.run(1.0)
    media = next(session.media for session in fleet.nms_node.calls.open if session.call_id == call_id)
    assert media is not None
    assert media.origin == told
    contact, _ = far_end_sees(fleet, call_id)
    assert (PRIVATE[0] in contact) is (nat == "none")


@pytest.mark.req("R10")
def test_an_address_that_the_operator_knows_is_told_from_the_start() -> None:
    eface = EfaceSettings(id=1, priority=1, interface="wwan0", external=PUBLIC[0])
    fleet = hidden("keeps ports", 0, uplinks=1, nms={"efaces": (eface,)}, comedia=False)
    call_id = fleet.call("in1", "out1")
    assert far_end_sees(fleet, call_id)[0].startswith(f"sip:{PUBLIC[0]}:5060")
    assert fleet.talking(call_id, "in1", "out1")


@pytest.mark.req("RO-10", "R6", "R7", "R10")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["carrier", "silence", "command"])
def test_calls_move_between_nats(kind: str, how: str) -> None:
    fleet = hidden(kind, 0, 1)
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(2.0)
    match how:
        case "carrier":
            fleet.cut(0)
        case "silence":
            fleet.silence(0)
        case _:
            fleet.operator(1, "off")
    fleet.world.run(1.0)
    assert fleet.uplink_of(out) == fleet.uplink_of(into) == PRIVATE[1]
    assert fleet.talking(out, "in1", "out1", span=2.0)
    assert fleet.talking(into, "in2", "out2", span=2.0)
    (moved,) = fleet.nms.notices("moved")
    assert moved["ended"] == {"verified": 2}
    fleet.silence(0)  # nothing may depend on the path that was left
    assert fleet.talking(out, "in1", "out1", span=2.0)
    assert fleet.talking(into, "in2", "out2", span=2.0)
    fleet.hang_up("out1", out)
    fleet.hang_up("in2", into)
    fleet.world.run(0.5)
    assert not fleet.up("in1", out)
    assert not fleet.up("out2", into)


@pytest.mark.req("R10", "R15")
def test_a_planned_move_that_is_refused_leaves_media_where_they_were() -> None:
    fleet = hidden("symmetric", 0, 1)
    call_id = fleet.call("in1", "out1")
    fleet.world.run(1.0)
    fleet.refuse_moves("out1", 488)
    fleet.operator(1, "off")
    fleet.world.run(3.0)
    assert fleet.uplink_of(call_id) == PRIVATE[0]
    fleet.silence(1)
    assert fleet.talking(call_id, "in1", "out1")


@pytest.mark.req("R10", "R6", "R15")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("public", ["", "203.0.113.222"], ids=["restarted", "renumbered"])
def test_a_nat_that_maps_anew_is_told_to_all(kind: str, public: str) -> None:
    fleet = hidden(kind, 0, 1)
    out, into = fleet.call("in1", "out1"), fleet.call("out2", "in2")
    fleet.world.run(2.0)
    began = fleet.world.now
    path = next(path for path in fleet.nms_node.paths.all if path.address == PRIVATE[0])
    before = path.mapped
    nat_of(fleet).forget(public or PUBLIC[0])
    if kind == "keeps ports" and not public:
        fleet.world.run(2.0)
        assert path.mapped == before  # nothing has changed for anybody
        assert not fleet.nms.notices("moved")
        return
    assert fleet.world.run_until(lambda: bool(fleet.nms.notices("moved")), 3.0)
    (moved,) = fleet.nms.notices("moved")
    assert (moved["cause"], moved["calls"]) == ("nat", 2)
    assert moved["to_paths"] == {path.name: 2}
    assert path.mapped != before
    assert fleet.talking(out, "in1", "out1", span=1.0)
    assert fleet.talking(into, "in2", "out2", span=1.0)
    for call_id, name in ((out, "in1"), (into, "in2")):
        assert fleet.stream(name, call_id).longest_gap(began, began + 2.0) < 0.35
    assert path.mapped in {
        binding.flow.remote for record in fleet.hs_node.bindings for binding in record.bindings.values() if binding.flow
    }
    later = fleet.call("out1", "in2")
    assert fleet.talking(later, "in2", "out1")
    fleet.hang_up("out1", out)
    fleet.world.run(0.5)
    assert not fleet.up("in1", out)


@pytest.mark.req("R10", "R3")
def test_a_call_that_rings_while_the_nat_forgets_is_completed() -> None:
    fleet = hidden("other ports", 0, 1, phone={"answer_after": 3.0})
    ringing = fleet.dial("in1", "out1")
    fleet.world.run(1.0)
    nat_of(fleet).forget(PUBLIC[0])
    assert fleet.world.run_until(lambda: fleet.up("in1", ringing) and fleet.up("out1", ringing), 8.0)
    assert fleet.talking(ringing, "in1", "out1")
    assert len(fleet.phones["out1"].notices("incoming")) == 1


@pytest.mark.req("R10")
def test_a_held_call_keeps_its_pinhole_open() -> None:
    fleet = hidden("symmetric", 0, 1)
    call_id = fleet.call("in1", "out1")
    fleet.world.run(1.0)
    punched = len(fleet.nms.plane.punched)
    fleet.phones["in1"].command("hold", call_id=call_id)
    fleet.world.run(45.0)
    kept = fleet.nms.plane.punched[punched:]
    assert kept, "nothing was sent from the media ports"
    assert {source for _, source, _, _ in kept} == {PRIVATE[0]}
    fleet.phones["in1"].command("resume", call_id=call_id)
    fleet.world.run(1.0)
    assert fleet.talking(call_id, "in1", "out1")


@pytest.mark.req("R10")
def test_paths_without_a_nat_send_no_keep_alives() -> None:
    fleet = Fleet()
    call_id = fleet.call("in1", "out1")
    fleet.phones["in1"].command("hold", call_id=call_id)
    fleet.world.run(45.0)
    fleet.cut(0)
    fleet.world.run(2.0)
    assert fleet.nms.plane.punched == []


@pytest.mark.req("R10", "R6")
@pytest.mark.parametrize("uri", ["sip:out1@home.example", "sip:out1@192.0.2.101"], ids=["through home", "directly"])
def test_a_phone_may_ring_for_longer_than_the_nat_remembers(uri: str) -> None:
    fleet = hidden("symmetric", 0, 1, phone={"answer_after": 70.0})
    call_id = str(fleet.phones["in1"].command("call", uri=uri)["call_id"])
    assert fleet.world.run_until(lambda: fleet.up("in1", call_id) and fleet.up("out1", call_id), 75.0)
    assert fleet.talking(call_id, "in1", "out1")
