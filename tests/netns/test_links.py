"""Interfaces as the kernel tells of them, in namespaces."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from teller import Teller

from sipnemo.lab.namespace import Namespace, Sandbox, available

pytestmark = pytest.mark.skipif(bool(available()), reason=available())


@pytest.fixture
def pair() -> Iterator[tuple[Namespace, Namespace]]:
    with Sandbox() as sandbox:
        here, there = sandbox.host("here"), sandbox.host("there")
        sandbox.cable(here, "wwan0", there, "far0")
        yield here, there


def test_interfaces_are_told_at_start(pair: tuple[Namespace, Namespace]) -> None:
    here, _there = pair
    here.add_address("wwan0", "198.51.100.7/24")
    teller = Teller(here, "wwan0,sat0")
    assert teller.links["sat0"]["ifindex"] == 0
    assert teller.links["sat0"]["up"] is False
    link = teller.links["wwan0"]
    assert (link["up"], link["addresses"]) == (True, ["198.51.100.7"])
    teller.end()
    everything = Teller(here)
    assert list(everything.links) == ["wwan0"]
    everything.end()


@pytest.mark.req("MH-3")
def test_carrier_and_administrative_state(pair: tuple[Namespace, Namespace]) -> None:
    here, there = pair
    here.add_address("wwan0", "198.51.100.7/24")
    teller = Teller(here, "wwan0")
    for host, device in ((there, "far0"), (here, "wwan0")):
        host.set_link(device, up=False)
        link = teller.until(lambda links: not links["wwan0"]["up"])
        assert link["addresses"] == ["198.51.100.7"]
        host.set_link(device, up=True)
        teller.until(lambda links: bool(links["wwan0"]["up"]))
    teller.end()


@pytest.mark.parametrize(
    ("address", "told"), [("198.51.100.7/24", "198.51.100.7"), ("2001:db8::7/64", "2001:db8::7")], ids=["IPv4", "IPv6"]
)
def test_addresses_come_and_go(pair: tuple[Namespace, Namespace], address: str, told: str) -> None:
    here, _there = pair
    teller = Teller(here, "wwan0")
    for _turn in range(2):
        here.add_address("wwan0", address)
        teller.until(lambda links: told in links["wwan0"]["addresses"])
        here.remove_address("wwan0", address)
        teller.until(lambda links: links["wwan0"]["addresses"] == [])
    teller.end()


def test_ipv6_addresses_that_cannot_be_used_are_not_told(pair: tuple[Namespace, Namespace]) -> None:
    here, _there = pair
    teller = Teller(here, "wwan0")
    for arguments in (
        "add 2001:db8::1/64 dev wwan0 preferred_lft 0 nodad",  # deprecated
        "add 2001:db8::2/64 dev wwan0 nodad",
        "add fe80::77/64 dev wwan0 nodad",
        "add 198.51.100.7/24 dev wwan0",
        "add 169.254.9.9/16 dev wwan0 scope link",
    ):
        here.run(["ip", "address", *arguments.split()], check=True)
    link = teller.until(lambda links: "198.51.100.7" in links["wwan0"]["addresses"])
    assert link["addresses"] == ["198.51.100.7", "2001:db8::2"]
    here.run(["ip", "address", "change", "2001:db8::2/64", "dev", "wwan0", "preferred_lft", "0"], check=True)
    teller.until(lambda links: links["wwan0"]["addresses"] == ["198.51.100.7"])
    teller.end()


def ip(host: Namespace, words: str) -> str:
    """What an `ip` command prints."""
    return str(host.run(["ip", *words.split()], stdout=subprocess.PIPE, text=True, check=True).stdout)


@pytest.mark.req("R9", "MH-2")
def test_temporary_addresses_are_not_told(pair: tuple[Namespace, Namespace]) -> None:
    here, _there = pair
    here.set_sysctl("net/ipv6/conf/wwan0/use_tempaddr", 2)
    ip(here, "address add 2001:db8:5::2/64 dev wwan0 mngtmpaddr nodad")
    shown = ip(here, "-6 address show dev wwan0 temporary")
    assert "2001:db8:5:" in shown, "the kernel has made no temporary address"
    teller = Teller(here, "wwan0")
    teller.until(lambda links: links["wwan0"]["addresses"] == ["2001:db8:5::2"])
    here.add_address("wwan0", "198.51.100.7/24")
    teller.until(lambda links: links["wwan0"]["addresses"] == ["198.51.100.7", "2001:db8:5::2"])
    teller.end()


@pytest.mark.req("R9", "MH-2")
def test_a_new_ipv6_prefix_takes_the_place_of_the_old_one(pair: tuple[Namespace, Namespace]) -> None:
    here, _there = pair
    teller = Teller(here, "wwan0")
    ip(here, "address add 2001:db8:1::2/64 dev wwan0 nodad")
    teller.until(lambda links: links["wwan0"]["addresses"] == ["2001:db8:1::2"])
    ip(here, "address add 2001:db8:2::2/64 dev wwan0 nodad")
    ip(here, "address change 2001:db8:1::2/64 dev wwan0 preferred_lft 0")
    teller.until(lambda links: links["wwan0"]["addresses"] == ["2001:db8:2::2"])
    teller.end()


@pytest.mark.req("MH-2")
def test_of_a_point_to_point_link_the_own_end_is_told(pair: tuple[Namespace, Namespace]) -> None:
    here, _there = pair
    teller = Teller(here, "wwan0", "wwan0")
    ip(here, "address add 10.64.0.2 peer 10.64.0.1 dev wwan0")
    ip(here, "route add default dev wwan0")  # as pppd does it
    teller.until(lambda links: links["wwan0"]["addresses"] == ["10.64.0.2"])

    deadline = time.monotonic() + 10
    while "dev wwan0 table 7060" not in ip(here, "route get 192.0.2.1 from 10.64.0.2"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    teller.end()


def test_an_interface_may_vanish_and_come_back(pair: tuple[Namespace, Namespace]) -> None:
    here, there = pair
    here.add_address("wwan0", "198.51.100.7/24")
    teller = Teller(here, "wwan0")
    before = teller.links["wwan0"]["ifindex"]
    here.delete_link("wwan0")
    link = teller.until(lambda links: links["wwan0"]["ifindex"] == 0)
    assert (link["up"], link["addresses"]) == (False, [])
    here.sandbox.cable(here, "wwan0", there, "far0")
    here.add_address("wwan0", "198.51.100.7/24")
    link = teller.until(lambda links: links["wwan0"]["addresses"] == ["198.51.100.7"] and links["wwan0"]["up"])
    assert link["ifindex"] not in (0, before)
    teller.end()


def test_a_renamed_interface_is_another_one(pair: tuple[Namespace, Namespace]) -> None:
    here, _there = pair
    teller = Teller(here)
    here.run(["ip", "link", "set", "wwan0", "down"], check=True)
    here.run(["ip", "link", "set", "wwan0", "name", "sat0"], check=True)
    teller.until(lambda links: links["wwan0"]["ifindex"] == 0 and links.get("sat0", {}).get("ifindex", 0) > 0)
    teller.end()


def test_a_port_that_leaves_a_bridge_is_still_there(pair: tuple[Namespace, Namespace]) -> None:
    here, _there = pair
    teller = Teller(here)
    here.run(["ip", "link", "add", "name", "br0", "type", "bridge"], check=True)
    here.run(["ip", "link", "set", "wwan0", "master", "br0"], check=True)
    here.run(["ip", "link", "set", "wwan0", "nomaster"], check=True)
    here.add_address("wwan0", "198.51.100.7/24")
    link = teller.until(lambda links: links["wwan0"]["addresses"] == ["198.51.100.7"])
    assert link["ifindex"] > 0
    teller.end()


def test_nothing_is_missed_when_the_kernel_drops_news(pair: tuple[Namespace, Namespace]) -> None:
    here, _there = pair
    teller = Teller(here, "wwan0")
    many = "\n".join(
        [
            *(f"address add 10.{a}.{b}.1/32 dev lo" for a in range(1, 40) for b in range(200)),
            "address add 198.51.100.7/24 dev wwan0",
        ]
    )
    here.run(["ip", "-batch", "-"], input=many, text=True, check=True)
    teller.until(lambda links: links["wwan0"]["addresses"] == ["198.51.100.7"])
    teller.end()
