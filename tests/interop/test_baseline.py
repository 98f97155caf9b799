"""baresip calls baresip through Kamailio, without sipnemo: the environment itself works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .baresip import Baresip
from .hosts import Host, Lan
from .programs import Certificates, Kamailio, Mode, Transport, make_certificates
from .tap import Tap

pytestmark = pytest.mark.programs("baresip", "kamailio", "kamailio-tls", "openssl")

SERVERS: dict[Mode, str] = {"proxy": "k1", "redirect": "k2"}
USERS = {"alice": "wonder", "bob": "builder"}
TRANSPORTS: tuple[Transport, ...] = ("udp", "tcp", "tls")


@pytest.fixture(scope="module")
def certificates(directory: Path) -> Certificates:
    return make_certificates(directory / "tls", [f"192.0.2.{number}" for number in range(11, 15)])


@pytest.fixture(scope="module")
def hosts(directory: Path, certificates: Certificates) -> Iterator[dict[str, Host]]:
    lan = Lan(["a", "b", "k1", "k2"], directory)
    with lan.world:
        for mode, name in SERVERS.items():
            Kamailio(lan.hosts[name], mode, USERS, TRANSPORTS, certificates).start()
        yield lan.hosts


@pytest.mark.parametrize("mode", SERVERS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_baresip_calls_baresip(
    hosts: dict[str, Host], certificates: Certificates, transport: Transport, mode: Mode
) -> None:
    domain = hosts[SERVERS[mode]].address
    secure = certificates if transport == "tls" else None

    def phone(name: str, user: str) -> Baresip:
        return Baresip(hosts[name], user, USERS[user], domain, transport, certificates=secure)

    with phone("a", "alice") as alice, phone("b", "bob") as bob, Tap(hosts["a"]) as at_a, Tap(hosts["b"]) as at_b:
        for number, closer in enumerate((alice, bob), 1):
            alice.dial(bob.uri)
            alice.wait_for("CALL_ESTABLISHED", number=number)
            bob.wait_for("CALL_ESTABLISHED", number=number)
            at_a.wait_for_rtp()
            at_b.wait_for_rtp()
            closer.hang_up()
            alice.wait_for("CALL_CLOSED", number=number)
            bob.wait_for("CALL_CLOSED", number=number)
