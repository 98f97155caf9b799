"""Which name a TLS server must show, from what DNS said on the way to it."""

from __future__ import annotations

from sipnemo.shell.tls import PeerNames


def test_a_server_found_by_srv_answers_for_the_domain() -> None:
    names = PeerNames()
    names.learn("_sips._tcp.home.example", "SRV", (("SRV", (10, 5, 5061, "one.hosting.example.")),))
    names.learn("one.hosting.example", "A", (("A", ("192.0.2.1",)),))
    names.learn("plain.example", "AAAA", (("AAAA", ("2001:db8::1",)),))
    assert names == {"192.0.2.1": "home.example", "2001:db8::1": "plain.example"}


def test_the_first_domain_that_led_to_an_address_counts() -> None:
    names = PeerNames()
    names.learn("first.example", "A", (("A", ("192.0.2.1",)),))
    names.learn("second.example", "A", (("A", ("192.0.2.1",)),))
    assert names["192.0.2.1"] == "first.example"


def test_names_do_not_fill_the_memory() -> None:
    names = PeerNames()
    for number in range(3 * PeerNames.MOST):
        names.learn(f"n{number}.example", "A", (("A", (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",)),))
    assert len(names) <= PeerNames.MOST + 1
