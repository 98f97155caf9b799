"""Interfaces that vanish and come back under a running gateway, with a call on them, as modems do."""

from __future__ import annotations

from pathlib import Path

import pytest

from sipnemo.lab.topology import WIRE

from .hosts import wait_until
from .nat import PORTS_KEPT, PRIVATE, NatWorld
from .test_nat import heard, move_after

pytestmark = pytest.mark.programs("nft")


def plug_in(world: NatWorld, number: int) -> None:
    """A new interface under the old name, with the old address and route, as a DHCP client would set it up."""
    nms, wire = world.hosts["nms"].namespace, world.world.host(WIRE)
    nms.sandbox.cable(nms, f"wan{number}", wire, f"uplink{number}.0")
    wire.run(["ip", "link", "set", f"uplink{number}.0", "master", f"uplink{number}.b"], check=True)
    nms.add_address(f"wan{number}", f"{PRIVATE[number]}/24")
    nms.add_route(gateway=f"192.168.{number}.1", device=f"wan{number}", dst="default", metric=100 + number)


@pytest.mark.req("R6", "R7", "R14", "RO-10", "MH-2")
def test_a_call_outlives_its_interface_and_goes_back_to_the_new_one(directory: Path) -> None:
    with (
        NatWorld(directory, PORTS_KEPT, lines=False) as world,
        world.phone("mn", "alice") as alice,
        world.phone("cn", "bob", "--symmetric") as bob,  # a NAT gives the renumbered gateway other ports
    ):
        alice.wait_for("registered")
        bob.wait_for("registered")
        alice.command("call", "sip:bob@192.0.2.10")
        alice.wait_for("answered")
        for phone in (alice, bob):
            heard(phone)
        world.hosts["nms"].namespace.delete_link("wan1")
        assert move_after(world, 0)["ended"] == {"verified": 1}
        for phone in (alice, bob):
            heard(phone)
        plug_in(world, 1)
        wait_until(lambda: world.paths_on() == {1, 2}, 15, "the new interface to be in use")
        moves = len(world.rows("moves"))
        world.world.cut("uplink2", "carrier")
        assert move_after(world, moves)["ended"] == {"verified": 1}
        for phone in (alice, bob):
            heard(phone)
        moves = len(world.rows("moves"))
        world.world.renumber("uplink1", "192.168.1.99/24")  # the only uplink left
        moved = move_after(world, moves)
        assert (moved["cause"], moved["ended"]) == ("address", {"verified": 1})
        assert list(moved["to_paths"]) == ["1/192.168.1.99"]
        for phone in (alice, bob):
            heard(phone)
        alice.command("hangup")
        bob.wait_for("ended")
