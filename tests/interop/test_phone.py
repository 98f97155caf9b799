"""`sipnemo phone` and baresip call each other through Kamailio: digest, redirection, hold, every transport."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from phone_process import PhoneProcess

from .baresip import Baresip
from .hosts import Host, Lan, wait_until
from .programs import Certificates, Kamailio, Mode, Transport, make_certificates

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


def ours(host: Host, server: str, transport: Transport, certificates: Certificates) -> PhoneProcess:
    """Our phone as alice."""
    password = host.directory / "password"
    password.write_text("wonder\n")
    flags: list[str | Path] = ["--account", "alice", "--password-file", password]
    flags += ["--server", f"sip:{server};transport={transport}", "--bind", host.address]
    if transport == "tls":
        flags += ["--tls-ca", certificates.authority, "--tls-cert", certificates.certificate]
    return PhoneProcess(*flags, popen=host.namespace.popen, log=host.directory / "phone.log")


@pytest.mark.parametrize("mode", SERVERS)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_calls_in_both_directions(
    hosts: dict[str, Host], certificates: Certificates, transport: Transport, mode: Mode
) -> None:
    domain = hosts[SERVERS[mode]].address
    secure = certificates if transport == "tls" else None
    with (
        Baresip(hosts["b"], "bob", USERS["bob"], domain, transport, certificates=secure) as bob,
        ours(hosts["a"], domain, transport, certificates) as alice,
    ):
        alice.wait_for("registered")
        alice.command("call", f"{bob.uri};transport={transport}")
        bob.wait_for("CALL_ESTABLISHED")
        first = alice.wait_for("answered")
        assert alice.wait_for_packets(50)["lost"] == 0
        bob.hang_up()
        assert alice.wait_for("ended")["by"] == "them"
        assert bool(alice.all("redirected")) is (mode == "redirect")
        bob.dial("sip:alice@" + domain)
        second = alice.wait_for("answered", number=2)
        assert second["call_id"] != first["call_id"]
        bob.wait_for("CALL_ESTABLISHED", number=2)
        assert alice.wait_for_packets(50)["junk"] == 0
        alice.command("hangup")
        bob.wait_for("CALL_CLOSED", number=2)
        assert not any(event["failed"] for event in alice.all("ended"))


def test_hold_from_either_side(hosts: dict[str, Host], certificates: Certificates) -> None:
    domain = hosts["k1"].address
    with (
        Baresip(hosts["b"], "bob", USERS["bob"], domain, "udp") as bob,
        ours(hosts["a"], domain, "udp", certificates) as alice,
    ):
        alice.wait_for("registered")
        alice.command("call", bob.uri)
        call_id = alice.wait_for("answered")["call_id"]
        alice.command("hold", call_id)
        alice.wait_for("held")
        alice.command("resume", call_id)
        alice.wait_for("resumed")
        bob.hold()
        wait_until(lambda: is_silent(alice), 10, "alice to be silent while bob holds")
        bob.resume()
        # What baresip plays back (aubridge) does not come back to life after hold, so our own packets are the proof.
        wait_until(lambda: not is_silent(alice), 10, "alice to send again")
        alice.command("hangup")
        bob.wait_for("CALL_CLOSED")


def is_silent(phone: PhoneProcess) -> bool:
    """Whether a phone has sent nothing between two reports that are some packets of time apart."""
    first = phone.wait_for_packets(0)["sent"]
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        last = phone.wait_for_packets(0)["sent"]
    return bool(last == first)
