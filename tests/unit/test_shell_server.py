"""A whole process around a tiny node: sockets, store, admin, service manager, stop."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sipnemo.roles.node import (
    Action,
    Command,
    Count,
    Environment,
    Finished,
    Input,
    Link,
    Listen,
    Log,
    Notice,
    Received,
    Reply,
    Send,
    Stop,
    Store,
    Stored,
    Tick,
)
from sipnemo.shell.server import ShellSettings, serve
from sipnemo.sip.flow import Local


def free_port(kind: int = socket.SOCK_DGRAM) -> int:
    with closing(socket.socket(socket.AF_INET, kind)) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Echo:
    """Listens when it starts, answers every message with itself, and keeps each message in the store."""

    deadline: float | None = None

    def __init__(self, environment: Environment, locals: tuple[Local, ...]) -> None:
        self.environment = environment
        self.locals = locals
        self.links: list[Link] = []
        self.started = False

    def handle(self, input: Input, now: float) -> list[Action]:
        match input:
            case Tick() if not self.started:
                self.started = True
                return [
                    *(Listen(local) for local in self.locals),
                    Log("info", "hello", "call-1", {"n": 1}),
                    Notice("ready"),
                ]
            case Received(data, flow):
                key = data.decode("latin-1")
                return [Send(data, flow), Count("calls_answered", ("in",)), Store(1, "seen", ((key, {"n": 1}),))]
            case Stored(_, error):
                return [Notice("stored", {"error": error})]
            case Link():
                self.links.append(input)
                return []
            case Command(ticket, "status", _):
                return [Reply(ticket, {"links": [link.name for link in self.links]})]
            case Command(ticket, "sessions", _):
                return []
            case Command(ticket, name, arguments):
                return [Reply(ticket, {"command": name, **arguments} if name != "moves" else {"error": "no"})]
            case Stop():
                return [Finished()]
            case _:
                return []


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Running:
    """`serve` in a task of its own."""

    def __init__(self, settings: ShellSettings, locals: tuple[Local, ...] = ()) -> None:
        self.nodes: list[Echo] = []
        self.notices: asyncio.Queue[Notice] = asyncio.Queue()
        self.stop = asyncio.Event()

        def factory(environment: Environment) -> Echo:
            self.nodes.append(Echo(environment, locals))
            return self.nodes[-1]

        self.task = asyncio.create_task(serve(factory, settings, on_notice=self.notices.put_nowait, stop=self.stop))

    async def notice(self, name: str) -> Notice:
        async with asyncio.timeout(10):
            while (notice := await self.notices.get()).name != name:
                pass
        return notice

    async def end(self) -> int:
        self.stop.set()
        return await asyncio.wait_for(self.task, 10)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_messages_are_answered_and_rows_survive(tmp_path: Path) -> None:
    async def story() -> None:
        settings = ShellSettings(store=f"sqlite:{tmp_path}/state/x.db", interfaces=("lo",), log_format="")
        udp, tcp = Local("UDP", "127.0.0.1", free_port()), Local("TCP", "127.0.0.1", free_port(socket.SOCK_STREAM))
        first = Running(settings, (udp, tcp))
        await first.notice("ready")
        message = b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", tcp.port)
        writer.write(message)
        assert await asyncio.wait_for(reader.readexactly(len(message)), 5) == message
        writer.close()
        await writer.wait_closed()
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as far:
            far.setblocking(False)
            far.bind(("127.0.0.1", 0))
            far.sendto(b"hello", ("127.0.0.1", udp.port))
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(far, 100), 5) == b"hello"
        assert (await first.notice("stored")).body == {"error": ""}
        assert (await first.notice("stored")).body == {"error": ""}
        assert [link.name for link in first.nodes[0].links] == ["lo"]
        assert await first.end() == 0

        second = Running(settings, ())
        await second.notice("ready")
        stored = second.nodes[0].environment.stored
        assert stored == {"seen": {"hello": {"n": 1}, message.decode(): {"n": 1}}}
        assert second.nodes[0].environment.seed != first.nodes[0].environment.seed
        assert len(second.nodes[0].environment.seed) >= 32
        assert await second.end() == 0

    asyncio.run(story())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        pytest.param({"store": "redis://x"}, "store = 'redis://x' is not known", id="store"),
        pytest.param({"admin": "192.0.2.1:8470"}, "[admin] listen = '192.0.2.1:8470' cannot be used", id="admin"),
        pytest.param({"admin": "nonsense"}, "write it as host:port or unix:/path", id="admin syntax"),
        pytest.param({"record": "/nowhere/x.jsonl"}, "recording /nowhere/x.jsonl cannot be written", id="recording"),
        pytest.param({"media_plane": "magic"}, "[media] plane = 'magic'", id="media plane"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(
    settings: Mapping[str, Any], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        running = Running(ShellSettings(log_format="", **settings))
        assert await asyncio.wait_for(running.task, 10) == 1

    asyncio.run(story())
    assert [record for record in caplog.records if text in record.getMessage()]
    assert sum(record.levelno >= logging.ERROR for record in caplog.records) == 1


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
            path = str(tmp_path / "notify")
            manager.bind(path)
            manager.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", path)
            monkeypatch.setenv("WATCHDOG_USEC", "20000")
            running = Running(ShellSettings(log_format=""))
            await running.notice("ready")
            assert b"READY=1" in manager.recv(100)
            assert manager.recv(100) == b"WATCHDOG=1"
            await running.end()
            told = [manager.recv(100)]
            while told[-1] != b"STOPPING=1":
                told.append(manager.recv(100))
            assert set(told) <= {b"WATCHDOG=1", b"STOPPING=1"}

    # ServiceManager reads the environment when it is made, which is inside serve.
    asyncio.run(story())


def test_the_admin_interface(tmp_path: Path) -> None:
    async def story() -> None:
        port = free_port(socket.SOCK_STREAM)
        running = Running(ShellSettings(admin=f"127.0.0.1:{port}", interfaces=("lo",), log_format=""))
        await running.notice("ready")
        base = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as client:
            rows: list[tuple[str, str, dict[str, Any], int, Any]] = [
                ("GET", "/api/status", {}, 200, {"links": ["lo"]}),
                ("GET", "/api/paths", {}, 200, {"command": "paths"}),
                ("GET", "/api/bindings?uri=a", {}, 200, {"command": "bindings", "uri": "a"}),
                ("GET", "/api/moves", {}, 400, {"error": "no"}),
                ("GET", "/api/nothing", {}, 404, {"error": "Not Found"}),
                ("GET", "/api/path/1", {}, 405, {"error": "Method Not Allowed"}),
                (
                    "POST",
                    "/api/path/1",
                    {"json": {"state": "off"}},
                    200,
                    {"command": "path", "eface_id": 1, "state": "off"},
                ),
                (
                    "POST",
                    "/api/path/one",
                    {"json": {"state": "off"}},
                    400,
                    {"error": "'one' is not an E-face ID (a number)"},
                ),
                ("POST", "/api/path/1", {"json": {"state": "gone"}}, 400, None),
                ("POST", "/api/path/1", {"json": ["off"]}, 400, None),
                ("POST", "/api/path/1", {"data": '{"state": "off"}'}, 415, None),
                (
                    "POST",
                    "/api/path/1",
                    {"data": "{", "headers": {"Content-Type": "application/json"}},
                    400,
                    {"error": "the body is not JSON"},
                ),
                (
                    "POST",
                    "/api/path/1",
                    {"json": {"state": "off"}, "headers": {"Origin": "https://evil.example"}},
                    403,
                    None,
                ),
                ("GET", "/api/status", {"headers": {"Host": "evil.example"}}, 403, None),
                ("GET", "/api/status", {"headers": {"Host": f"localhost:{port}"}}, 200, None),
                ("GET", "/api/status", {"headers": {"Host": "[::1]"}}, 200, None),
            ]
            for method, path, options, status, body in rows:
                async with client.request(method, base + path, **options) as response:
                    assert response.status == status, (method, path, options)
                    given = await response.json()
                    assert given == body or body is None
            async with client.get(base + "/metrics") as response:
                assert response.status == 200
                text = await response.text()
                assert "sipnemo_bugs_total 0.0" in text
                assert "process_resident_memory_bytes" in text
            async with client.get(base + "/healthz") as response:
                assert (response.status, await response.text()) == (200, "ok\n")
        assert await running.end() == 0

    asyncio.run(story())


def test_the_admin_interface_on_a_unix_socket(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "admin"
        with closing(socket.socket(socket.AF_UNIX)) as stale:
            stale.bind(str(path))  # left behind
        running = Running(ShellSettings(admin=f"unix:{path}", interfaces=("lo",), log_format=""))
        await running.notice("ready")
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
            client.get("http://sipnemo/api/status") as response,
        ):
            assert await response.json() == {"links": ["lo"]}
        assert path.stat().st_mode & 0o777 == 0o660
        assert await running.end() == 0
        assert not path.exists()

    asyncio.run(story())


PROCESS = """
import asyncio, sys
from sipnemo.roles.node import Finished, Notice, Stop
from sipnemo.shell.server import ShellSettings, serve

class Node:
    deadline = None
    def handle(self, input, now):
        return [Finished()] if isinstance(input, Stop) else [Notice("ready")]

sys.exit(asyncio.run(serve(lambda environment: Node(), ShellSettings(role="tiny", interfaces=("lo",)))))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PROCESS], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        while "tiny is ready" not in (line := process.stderr.readline()):
            said.append(line)
            assert line, said
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(10) == 0, rest
    assert "tiny is stopping" in rest
    assert "Traceback" not in rest


def test_a_recording_is_written(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "run.jsonl"
        running = Running(ShellSettings(record=str(path), interfaces=("lo",), log_format="", seed="ab"))
        await running.notice("ready")
        await running.end()
        header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert header["seed"] == "ab"
        assert [kind for _now, kind, _fields in lines] == ["Tick", "Link", "Stop"]

    asyncio.run(story())
