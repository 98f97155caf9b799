"""Where the signalling benches run: one network namespace, all addresses on its loopback, and sipnemo in it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sipnemo.lab.namespace import Namespace, Sandbox
from sipnemo.lab.processes import Admin, Server, secret, toml

INSIDE = "127.7.0.1"
"Where the server under test takes calls from the caller."
CALLER = "127.7.0.11"
CALLED = "127.9.0.31"
UPLINKS = {1: "127.1.0.7", 2: "127.2.0.7"}
HOME = "127.9.0.10"
TICK = os.sysconf("SC_CLK_TCK")
NO_MEDIA = str(Path(__file__).with_name("no_media.py"))


def cores() -> tuple[int, int]:
    """The core of the server under test and the core of everything else; the same where there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[-1], usable[0]


class Place:
    """The namespace with its addresses. A context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server_core, self.other_core = cores()

    def __enter__(self) -> Place:
        self.sandbox = Sandbox()
        try:
            self.host: Namespace = self.sandbox.host("bench")
            for address in (INSIDE, CALLER, CALLED, HOME, *UPLINKS.values()):
                self.host.add_address("lo", f"{address}/32")
        except BaseException:
            self.sandbox.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.sandbox.close()

    def popen(self, argv: Sequence[str], core: int, log: Path, **options: Any) -> subprocess.Popen[Any]:
        """A program in the namespace, pinned to a core, its output in a file."""
        with log.open("wb") as out:
            pinned = ["taskset", "-c", str(core), *argv]
            return self.host.popen(pinned, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options)


class Gateway:
    """`sipnemo nms` and the `sipnemo hs` it registers with. A context manager."""

    def __init__(self, place: Place, directory: Path, *, media: bool = True, uplinks: int = 1) -> None:
        self.place, self.directory = place, directory
        directory.mkdir(parents=True)
        self.servers: list[Server] = []
        self._start("hs", _home(directory), place.other_core)
        program = (sys.executable, "-m", "sipnemo") if media else (sys.executable, NO_MEDIA)
        self.nms = self._start("nms", _gateway(directory, uplinks), place.server_core, program)
        self.admin = Admin(place.host)
        until(lambda: len([p for p in self.admin.rows("paths", True) if p["status"] == "ON"]) == uplinks, "paths ON")

    def _start(
        self, name: str, tables: list[tuple[str, Mapping[str, Any]]], core: int, program: tuple[str, ...] = ()
    ) -> Server:
        config = self.directory / f"{name}.toml"
        config.write_text(toml(tables))
        server = Pinned(self.place, core, name, config, self.directory, program)
        self.servers.append(server)
        until(server.ready, f"sipnemo {name} ready", 20)
        return server

    @property
    def pid(self) -> int:
        """Of the SIP-NMS."""
        return self.nms.process.pid

    def close(self) -> None:
        """End both."""
        for server in reversed(self.servers):
            server.stop()
            server.process.wait(20)
            server.close()


class Pinned(Server):
    """A sipnemo server on a core of its own."""

    def __init__(
        self, place: Place, core: int, name: str, config: Path, directory: Path, program: tuple[str, ...]
    ) -> None:
        self._core, self._program = core, program
        super().__init__(_PinnedHost(place.host, core, program), name, config, directory, directory)


class _PinnedHost(Namespace):
    """The namespace, with every program pinned, and another one in the place of `python -m sipnemo`."""

    def __init__(self, host: Namespace, core: int, program: tuple[str, ...]) -> None:
        self.__dict__.update(host.__dict__)
        self._core, self._program = core, program

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command, pinned."""
        program = self._program or tuple(argv[:3])
        return super().command(["taskset", "-c", str(self._core), *program, *argv[3:]])


def _home(directory: Path) -> list[tuple[str, Mapping[str, Any]]]:
    password = str(secret(directory, "fleet", "rolling home"))
    return [
        ("[hs]", {"domain": HOME, "listen": [f"udp:{HOME}:5060"], "store": "memory"}),
        ("[admin]", {"listen": ""}),
        ("[[account]]", {"name": "fleet", "password_file": password}),
    ]


def _gateway(directory: Path, uplinks: int) -> list[tuple[str, Mapping[str, Any]]]:
    state = directory / "state"
    state.mkdir()
    own = {"home": f"sip:{HOME}", "account": "fleet", "state_dir": str(state)}
    efaces = [("[[eface]]", {"id": n, "address": UPLINKS[n], "priority": n}) for n in list(UPLINKS)[:uplinks]]
    return [
        ("[nms]", {**own, "password_file": str(directory / "fleet.password")}),
        ("[iface]", {"address": INSIDE}),
        ("[probe]", {"hold_down": 0.3}),
        # Thousands of calls a second, none longer than a moment: more ports, and a shorter rest.
        ("[media]", {"ports": [6000, 65535], "quarantine_after": 1.0}),
        ("[admin]", {"listen": "127.0.0.1:8470", "log_level": "warning"}),
        *efaces,
    ]


def until(condition: Any, what: str, within: float = 15.0) -> None:
    """Wait for a condition; SystemExit when it does not come true."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: not within {within:g} s: {what}")
        time.sleep(0.02)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += family(int(child))
    return found


def cpu_seconds(pids: Sequence[int]) -> tuple[float, float]:
    """CPU seconds of these processes in user and in kernel mode."""
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11])
        system += int(fields[12])
    return user / TICK, system / TICK


def memory_kib(pids: Sequence[int]) -> int:
    """Proportional set size: memory that several share is counted once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total
