"""Where the SIP-HS is, as DNS says it, and who is trusted to be it."""

from __future__ import annotations

import pytest
from nms_world import UPLINKS, Gateway

from sipnemo.roles.nms.settings import ProbeSettings
from sipnemo.roles.node import Action, Answer, Link, Lookup, Notice


class NamedHome(Gateway):
    """The SIP-HS is found by DNS; its addresses may change."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.told: list[list[str]] = []
        super().__init__(home="sip:home.example", probe=ProbeSettings(probe_every=60.0, probe_idle_every=60.0))

    def _perform(self, action: Action) -> list[Action]:
        match action:
            case Lookup(ticket, _, kind):
                records = tuple(("A", (address,)) for address in self.addresses) if kind == "A" else ()
                return self.node.handle(Answer(ticket, records, 1.0), self.now)
            case Notice("home", body):
                self.told.append(list(body["addresses"]))
        return super()._perform(action)


@pytest.mark.req("RO-2")
def test_where_the_home_server_was_found_is_told_once() -> None:
    gateway = NamedHome("192.0.2.1", "192.0.2.2")
    gateway.run(5.0)
    assert gateway.told == [["192.0.2.1", "192.0.2.2"]]


def test_an_address_that_dns_has_given_up_is_not_trusted_for_ever() -> None:
    gateway = NamedHome("192.0.2.1", "192.0.2.2")
    gateway.run(5.0)
    for number in range(3, 40):
        gateway.addresses = ("192.0.2.1", f"192.0.2.{number}")
        gateway.run(600.0)
    assert gateway.node.home.hosts == {"192.0.2.1", "192.0.2.39"}
    assert gateway.told[-1] == ["192.0.2.1", "192.0.2.39"]


def test_the_home_server_is_known_while_there_is_no_uplink() -> None:
    gateway = NamedHome("192.0.2.1")
    for index, name in enumerate(UPLINKS, 3):
        gateway.feed(Link(name, index, False, ()))
    gateway.run(60.0)
    assert gateway.node.home.hosts == {"192.0.2.1"}
