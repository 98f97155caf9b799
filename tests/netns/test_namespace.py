"""Hosts made of namespaces: wired, cut, restored, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sipnemo.lab.namespace import Namespace, Sandbox, SandboxError, available, why_forbidden

pytestmark = pytest.mark.skipif(bool(available()), reason=available())

ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.0.0.2", 4000))
print("ready", flush=True)
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(data, peer)
"""
ASK = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.sendto(b"hello", ("10.0.0.2", 4000))
print(s.recv(2048).decode())
"""


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture
def pair(sandbox: Sandbox) -> tuple[Namespace, Namespace]:
    left, right = sandbox.host("left"), sandbox.host("right")
    sandbox.cable(left, "eth0", right, "eth0")
    left.add_address("eth0", "10.0.0.1/24")
    right.add_address("eth0", "10.0.0.2/24")
    return left, right


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_hosts_talk_over_a_cable(pair: tuple[Namespace, Namespace]) -> None:
    left, right = pair
    with right.popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True) as echo:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        answer = left.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
        assert answer.stdout == "hello\n"
        echo.kill()


def test_a_far_end_that_goes_down_takes_the_carrier_along(pair: tuple[Namespace, Namespace]) -> None:
    left, right = pair
    until(lambda: left.has_carrier("eth0"))
    at = right.set_link("eth0", up=False)
    until(lambda: not left.has_carrier("eth0"))
    right.set_link("eth0", up=True)
    until(lambda: left.has_carrier("eth0"))
    assert 0 < at < time.monotonic()


def test_a_removed_address_takes_its_routes_along(pair: tuple[Namespace, Namespace]) -> None:
    left, _right = pair
    left.add_route(dst="default", gateway="10.0.0.2", device="eth0")
    assert len(routes(left)) == 2
    left.remove_address("eth0", "10.0.0.1/24")
    assert routes(left) == []


def routes(host: Namespace) -> list[str]:
    return str(host.run(["cat", "/proc/net/route"], capture_output=True, text=True).stdout).splitlines()[1:]


def test_a_sysctl_is_the_hosts_own(pair: tuple[Namespace, Namespace]) -> None:
    left, right = pair
    left.set_sysctl("net/ipv4/ip_forward", 1)
    read = ["cat", "/proc/sys/net/ipv4/ip_forward"]
    assert [h.run(read, capture_output=True, text=True).stdout for h in (left, right)] == ["1\n", "0\n"]


def test_a_host_may_see_another_file_in_the_place_of_one(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("192.0.2.10 home.example\n")
    host = sandbox.host("named", files={"/etc/hosts": str(tmp_path / "hosts")})
    assert host.run(["cat", "/etc/hosts"], capture_output=True, text=True).stdout == "192.0.2.10 home.example\n"
    assert "home.example" not in Path("/etc/hosts").read_text()


def test_a_switch_joins_its_ports(sandbox: Sandbox) -> None:
    switch, one, two = (sandbox.host(name) for name in ("switch", "one", "two"))
    sandbox.cable(one, "eth0", switch, "port1")
    sandbox.cable(two, "eth0", switch, "port2")
    switch.bridge("br0", ["port1", "port2"])
    one.add_address("eth0", "10.0.0.1/24")
    two.add_address("eth0", "10.0.0.2/24")
    with two.popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True) as echo:
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        assert one.run([sys.executable, "-c", ASK], capture_output=True, text=True).stdout == "hello\n"
        echo.kill()


def test_closing_ends_every_process_even_those_that_forked_away() -> None:
    sandbox = Sandbox()
    host = sandbox.host("busy")
    process = host.popen(["sh", "-c", "setsid sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    sandbox.close()
    sandbox.close()
    assert process.poll() is not None
    assert not os.path.exists(f"/proc/{child}/ns/net") or Path(f"/proc/{child}/stat").read_text().split()[2] == "Z"
    with pytest.raises(SandboxError, match="closed"):
        sandbox.host("late")


def test_what_cannot_be_done_is_said_and_the_sandbox_lives_on(sandbox: Sandbox) -> None:
    host = sandbox.host("only")
    with pytest.raises(SandboxError, match="no device eth7 in only"):
        host.set_link("eth7", up=True)
    assert host.run(["true"]).returncode == 0


@pytest.mark.parametrize(
    ("file", "value"),
    [
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ],
)
def test_a_forbidding_host_is_told_which_setting_and_that_sudo_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, value: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(value + "\n")
    text = why_forbidden("unshare: Operation not permitted", tmp_path)
    assert f"{file.replace('/', '.')} = {value} forbids it" in text
    assert "sudo" in text
