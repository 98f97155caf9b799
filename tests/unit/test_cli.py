"""The command line, as an operator types it."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sipnemo import __version__
from sipnemo.app import policies
from sipnemo.app.cli import main
from sipnemo.app.config import SettingError, read
from sipnemo.app.serve import gateway_shell
from sipnemo.nemo.policy import least_load
from sipnemo.roles.node import Command, Input, Reply
from sipnemo.shell.admin import Admin
from sipnemo.shell.metrics import Metrics

GATEWAY = """\
[nms]
home = "sip:203.0.113.10:5060"
account = "fleet7"
password_file = "password"
state_dir = "state"
manage_routes = true
[iface]
interface = "lan0"
[[eface]]
id = 1
interface = "wwan0"
[[eface]]
id = 2
interface = "sat0"
capacity = "2 Mbit/s"
gateway = "192.0.2.1"
"""
HOME = '[hs]\ndomain = "home.example"\n[[account]]\nname = "fleet7"\npassword_file = "password"\n'
ANSWERS: dict[str, Any] = {
    "status": {"role": "nms", "calls": 2, "home": "", "gauges": {"calls": 2}, "since": 312.345},
    "paths": [
        {
            "host_id": "urn:uuid:1",
            "eface_id": 1,
            "contact": "198.51.100.7:5060",
            "status": "OFF",
            "load": 0,
            "rtt": None,
        },
        {
            "host_id": "urn:uuid:1",
            "eface_id": 2,
            "contact": "192.0.2.7:5060",
            "status": "ON",
            "load": 12.5,
            "rtt": 0.05,
        },
    ],
    "bindings": [],
    "sessions": {"sessions": [{"call_id": "a" * 80, "eface_id": 2}]},
    "moves": [
        {
            "at": 1.5,
            "cause": "carrier",
            "planned": False,
            "to_paths": {"2/192.0.2.7": 9},
            "ended": {"moved": 9},
            "reasons": {},
            "gap_down_ms": {"median": 61.25, "worst": 78.0},
        }
    ],
    "path": {"error": "no uplink 9; known: 1, 2"},
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, text in (("nms.toml", GATEWAY), ("hs.toml", HOME), ("password", "secret\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def ask_a_server(listen: str, question: Callable[[str], int]) -> tuple[int, list[Command]]:
    """Run a question against the real admin interface in front of a node that knows the answers."""
    asked: list[Command] = []

    def feed(input: Input) -> None:
        assert isinstance(input, Command)
        asked.append(input)
        admin.reply(Reply(input.ticket, ANSWERS[input.name]))

    async def run() -> int:
        await admin.start()
        try:
            address = admin.address if listen.startswith("unix:") else f"http://{admin.address}"
            return await asyncio.to_thread(question, address)
        finally:
            await admin.close()

    admin = Admin(feed, Metrics(), listen=listen)
    return asyncio.run(run()), asked


@pytest.mark.parametrize("name", ["status", "paths", "bindings", "sessions", "moves"])
@pytest.mark.parametrize("way", ["tcp", "unix"])
def test_json_is_printed_as_the_server_gave_it(
    name: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listen = "127.0.0.1:0" if way == "tcp" else f"unix:{tmp_path}/admin.sock"
    status, _ = ask_a_server(listen, lambda url: main([name, "--json", "--admin", url]))
    assert status == 0
    assert json.loads(capsys.readouterr().out) == ANSWERS[name]


@pytest.mark.parametrize(
    ("name", "shown", "hidden"),
    [
        ("status", ["role", "nms", "5 min 12 s", "–"], ["gauges"]),
        ("paths", ["eface id", "198.51.100.7:5060", "OFF", "ON", "50.0 ms", "12 %"], ["None", "urn:uuid"]),
        ("bindings", ["nobody is registered"], []),
        ("sessions", ["call id", "a" * 80], []),
        ("moves", ["carrier", "no", "gap down (ms)", "61, worst 78", "moved: 9"], ["reasons", "1.5"]),
    ],
)
def test_answers_are_tables(name: str, shown: list[str], hidden: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = ask_a_server("127.0.0.1:0", lambda url: main([name, "--admin", url]))
    out = capsys.readouterr().out
    assert status == 0
    assert [text for text in shown if text not in out] == []
    assert [text for text in hidden if text in out] == []


def test_a_path_command_reaches_the_node_and_its_refusal_the_operator(capsys: pytest.CaptureFixture[str]) -> None:
    status, asked = ask_a_server("127.0.0.1:0", lambda url: main(["path", "9", "off", "--admin", url]))
    assert status == 1
    assert [(command.name, dict(command.arguments)) for command in asked] == [("path", {"eface_id": 9, "state": "off"})]
    assert capsys.readouterr().err == "sipnemo path: no uplink 9; known: 1, 2\n"


@contextmanager
def closed_port() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_no_server_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with closed_port() as address:
        assert main(["status", "--admin", address]) == 1
    expected = f"sipnemo status: no server answers at {address} (Connection refused); is it running, and is that its"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("address", ["ftp://host", "http://", "http://h:x", "http://h/path", "unix:admin", ""])
def test_what_is_no_address_is_said_so(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paths", "--admin", address]) == 1
    assert "is not an address; write for example --admin http://127.0.0.1:8470" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "meaning"), [("nms.toml", 'gateway "fleet7" of sip:203.0.113.10:5060'), ("hs.toml", "home server of home.example")])  # fmt: skip  # noqa: E501
def test_check_says_what_a_file_means(
    file: str, meaning: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(directory / file)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{directory / file}: ok\n  {meaning}")
    assert captured.err == ""


def test_check_explains_every_mistake_and_counts_them(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = directory / "nms.toml"
    path.write_text(GATEWAY.replace("account", "acount").replace("2 Mbit/s", "fast"))
    assert main(["check", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in lines[:3]] == ["1", "3", "15"]
    assert lines[3] == f"{path}: 3 mistakes"


@pytest.mark.parametrize("command", ["nms", "hs"])
def test_a_server_does_not_start_from_a_wrong_file(
    command: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = directory / ("hs.toml" if command == "nms" else "nms.toml")
    assert main([command, "--config", str(other)]) == 78
    assert "run: sipnemo" in capsys.readouterr().err


def test_the_fan_out_server_is_not_there_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fs", "--config", "fs.toml"]) == 2
    assert "not available in this version" in capsys.readouterr().err


def test_the_gateways_shell_knows_its_uplinks(directory: Path) -> None:
    settings = gateway_shell(read(directory / "nms.toml"))
    assert settings.role == "nms"
    assert settings.interfaces == ("lan0", "wwan0", "sat0")
    assert settings.uplinks == ("wwan0", "sat0")
    assert settings.gateways == {"sat0": ("192.0.2.1",)}
    assert settings.manage_routes
    assert settings.media_plane == "auto"
    assert settings.store == f"state:{directory}/state/nms.db"
    assert settings.admin == "127.0.0.1:8470"


def test_policies_are_found_by_name() -> None:
    assert policies.load("least-load") is least_load
    with pytest.raises(SettingError, match="not an installed policy; did you mean least-load"):
        policies.load("least-lood")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sipnemo", *words], capture_output=True, text=True, timeout=60)


def test_the_module_is_the_command() -> None:
    assert run("--version").stdout == f"sipnemo {__version__}\n"
    assert run().returncode == 2
    assert run("no-such-command").returncode == 2


def test_views_start_without_what_only_servers_need() -> None:
    """Start-up time is what is imported; a machine's speed is not for a test to judge."""
    script = (
        "import sys; from sipnemo.app.cli import main; main(['status', '--admin', 'unix:/nowhere']); "
        "print(sorted({'aiohttp', 'asyncio', 'dns', 'pyroute2', 'prometheus_client', 'rich', 'tomllib'} & "
        "sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
