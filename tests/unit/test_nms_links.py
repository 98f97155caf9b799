"""Addresses and interfaces that come, go and change places, and what becomes of the paths and calls on them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nms_world import FAR, INSIDE, SETTINGS, UPLINKS, Gateway

from sipnemo.roles.nms.settings import EfaceSettings
from sipnemo.roles.node import Link

UP1, UP2 = UPLINKS.values()


def addresses(gateway: Gateway) -> list[tuple[int, str, str]]:
    return [(path.eface.id, path.address, path.device) for path in gateway.node.paths.all]


def path_of(gateway: Gateway, address: str) -> str:
    """Where the group of the path with this address leaves."""
    path = next(path for path in gateway.node.paths.all if path.address == address)
    return gateway.ways[path.group].device


def test_an_interface_may_be_made_anew_under_its_name() -> None:
    gateway = Gateway()
    gateway.talk()
    gateway.feed(Link("wwan0", 0, False, ()))
    assert addresses(gateway) == [(2, UP2, "sat0")]
    gateway.feed(Link("wwan0", 9, True, (UP1,)))
    gateway.run(6.0)
    assert addresses(gateway) == [(1, UP1, "wwan0"), (2, UP2, "sat0")]
    assert all(path.on for path in gateway.node.paths.all)
    gateway.call(call_id="c2")
    assert gateway.flows[id(gateway.got(FAR, "INVITE")[-1])].local.host == UP1


@pytest.mark.parametrize("first", ["old", "new"])
def test_an_address_may_move_from_one_uplink_to_another(first: str) -> None:
    gateway = Gateway()
    gateway.talk()
    news = [Link("wwan0", 3, True, ()), Link("sat0", 4, True, (UP1, UP2))]
    for link in news if first == "old" else reversed(news):
        gateway.feed(link)
    gateway.run(6.0)
    assert sorted(addresses(gateway)) == [(2, UP1, "sat0"), (2, UP2, "sat0")]
    assert all(path.on for path in gateway.node.paths.all)
    assert path_of(gateway, UP1) == "sat0"
    (session,) = gateway.node.calls.open
    assert session.path.on
    assert session.path.device == "sat0"


@pytest.mark.parametrize("first", ["old", "new"])
def test_an_uplink_that_is_named_by_its_address_may_change_its_interface(first: str) -> None:
    efaces = (EfaceSettings(id=1, priority=1, address=UP1), EfaceSettings(id=2, priority=2, address=UP2))
    gateway = Gateway(efaces=efaces)
    gateway.talk()
    news = [Link("wwan0", 3, True, ()), Link("usb0", 9, True, (UP1,))]
    for link in news if first == "old" else reversed(news):
        gateway.feed(link)
    gateway.run(6.0)
    assert addresses(gateway) == [(1, UP1, "usb0"), (2, UP2, "sat0")]
    assert all(path.on for path in gateway.node.paths.all)
    assert path_of(gateway, UP1) == "usb0"
    (session,) = gateway.node.calls.open
    assert session.path.on


def test_an_address_that_two_uplinks_have_is_used_on_the_first_only() -> None:
    gateway = Gateway()
    gateway.feed(Link("sat0", 4, True, (UP1,)))
    assert addresses(gateway) == [(1, UP1, "wwan0")]
    (warning,) = [log for log in gateway.logs if "the same address" in log.text]
    assert warning.fields == {"address": UP1, "first": "wwan0", "second": "sat0"}
    gateway.feed(Link("sat0", 4, True, (UP2,)))
    gateway.run(6.0)
    assert addresses(gateway) == [(1, UP1, "wwan0"), (2, UP2, "sat0")]
    gateway.feed(Link("sat0", 4, True, (UP1,)))
    gateway.feed(Link("wwan0", 0, False, ()))
    assert addresses(gateway) == [(2, UP1, "sat0")]


def test_a_second_address_is_a_path_of_its_own() -> None:
    gateway = Gateway()
    gateway.feed(Link("wwan0", 3, True, (UP1, "198.51.100.8")))
    gateway.run(6.0)
    assert [path.reg_id for path in gateway.node.paths.all] == [1, 101, 2]
    gateway.talk()
    gateway.feed(Link("wwan0", 3, True, ("198.51.100.8",)))
    (session,) = gateway.node.calls.open
    assert session.path.address == "198.51.100.8"


def test_the_inside_is_no_uplink() -> None:
    gateway = Gateway(efaces=(replace(SETTINGS.efaces[0]),))
    gateway.feed(Link("lan0", 2, True, (INSIDE,)))
    assert addresses(gateway) == [(1, UP1, "wwan0")]
