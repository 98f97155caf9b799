"""Phones whose own SIP server is `sipnemo hs`: digest as they know it, calls in both directions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from phone_process import PhoneProcess
from sipnemo.lab.processes import Server, secret

from .baresip import Baresip
from .hosts import Host, Lan, wait_until

pytestmark = pytest.mark.programs("baresip")

USERS = {"alice": "wonder", "bob": "builder"}


@contextmanager
def home_server(host: Host, digest: str) -> Iterator[None]:
    """`sipnemo hs` for both users; `digest` as in its configuration."""
    directory = host.directory
    lines = ["[hs]", f'domain = "{host.address}"', 'store = "memory"', f"digest = {digest}"]
    for user, password in USERS.items():
        lines += ["[[user]]", f'name = "{user}"', f'password_file = "{secret(directory, user, password)}"']
    config = directory / "hs.toml"
    config.write_text("\n".join(lines) + "\n")
    (directory / "hs.notify").unlink(missing_ok=True)
    server = Server(host.namespace, "hs", config, directory, directory)
    try:
        wait_until(server.ready, 20, "sipnemo hs to be ready")
        yield
    finally:
        server.stop()
        server.close()


@pytest.fixture(scope="module")
def hosts(directory: Path) -> Iterator[dict[str, Host]]:
    lan = Lan(["a", "b", "hs"], directory)
    with lan.world:
        yield lan.hosts


@contextmanager
def ours(host: Host, server: str) -> Iterator[PhoneProcess]:
    password = secret(host.directory, "alice", USERS["alice"])
    flags: list[str | Path] = [
        "--account",
        "alice",
        "--password-file",
        password,
        "--server",
        f"sip:{server}",
        "--bind",
        host.address,
    ]
    with PhoneProcess(*flags, popen=host.namespace.popen, log=host.directory / "phone.log") as phone:
        phone.wait_for("registered")
        yield phone


@pytest.mark.parametrize("digest", ['["sha-256", "sha-512-256", "md5"]', '["sha-512-256"]', '["md5"]'])
def test_our_phone_knows_every_digest(hosts: dict[str, Host], digest: str) -> None:
    with home_server(hosts["hs"], digest), ours(hosts["a"], hosts["hs"].address) as alice:
        assert alice.all("registered")


def test_a_phone_of_old_calls_and_is_called(hosts: dict[str, Host]) -> None:
    """baresip 1.0 gives up when it is offered anything but MD5."""
    home = hosts["hs"].address
    with (
        home_server(hosts["hs"], '["md5"]'),
        Baresip(hosts["b"], "bob", USERS["bob"], home) as bob,
        ours(hosts["a"], home) as alice,
    ):
        bob.dial(f"sip:alice@{home}")
        alice.wait_for("answered")
        bob.wait_for("CALL_ESTABLISHED")
        alice.command("hangup")
        bob.wait_for("CALL_CLOSED")
        alice.command("call", bob.uri)
        alice.wait_for("answered", number=2)
        alice.command("hangup")
        bob.wait_for("CALL_CLOSED", number=2)
