"""sipnemo hs and sipnemo nms as an operator would start them, in the world of `hosts.gateway_topology`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sipnemo.lab.line import Quality
from sipnemo.lab.processes import Admin, Server, secret, toml
from sipnemo.lab.topology import How, World

from .hosts import Host, gateway_topology, hosts_of, wait_until
from .programs import Transport, make_certificates

INSIDE = "10.7.0.1"
UPLINKS = {"uplink1": "198.51.100.7", "uplink2": "203.0.113.7"}
"Line of the world and the gateway's address on it."

HOME = "192.0.2.10"
PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}
ALL: tuple[Transport, ...] = ("udp", "tcp", "tls")


@dataclass
class GatewayWorld:
    """The world with the gateway and its home server running; a context manager."""

    directory: Path
    nms_tables: Mapping[str, Mapping[str, Any]]
    "More for nms.toml, for example {'[media]': {'plane': 'userspace'}}."

    def __enter__(self) -> GatewayWorld:
        self.world = World(gateway_topology(Quality(delay=25.0)))
        try:
            self._start()
        except BaseException:
            self.world.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for server in reversed(self.servers):  # the gateway signs off at its home server
                server.stop()
                assert server.process.wait(10) == 0, f"{server.name} did not end cleanly:\n{tail(server.log)}"
        finally:
            for server in self.servers:
                server.close()
            self.world.close()

    def paths_on(self) -> set[int]:
        """The E-face IDs whose paths are ON."""
        return {int(path["eface_id"]) for path in self._rows("paths") if path["status"] == "ON"}

    def sessions(self) -> list[dict[str, Any]]:
        """The Session List."""
        return self._rows("sessions")

    def moves(self) -> list[dict[str, Any]]:
        """Every move so far."""
        return self._rows("moves")

    def cut(self, line: str, how: How) -> None:
        """Break an uplink until `calm` is called."""
        self.world.cut(line, how)
        self._broken.add(line)

    def mend(self) -> None:
        """Mend what is cut and wait until both paths are ON."""
        while self._broken:
            self.world.restore(self._broken.pop())
        wait_until(lambda: self.paths_on() == {1, 2}, 15, f"both paths to be ON: {self._rows('paths')}")

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Both paths ON and no call before and after; an AssertionError in between ends with the servers' logs."""
        self.mend()
        wait_until(lambda: not self.sessions(), 10, "the Session List to be empty before the test")
        try:
            yield
            self.mend()
            wait_until(lambda: not self.sessions(), 10, f"the Session List to be empty: {self.sessions()}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.say()}") from error

    def say(self) -> str:
        """The end of both logs, for a test that failed."""
        return "\n".join(f"--- {server.name}\n{tail(server.log)}" for server in self.servers)

    def _rows(self, view: str) -> list[dict[str, Any]]:
        answer = self.admin.get(f"/api/{view}")
        rows = answer.get(view, []) if isinstance(answer, dict) else answer
        return list(rows or [])

    def _start(self) -> None:
        self.servers: list[Server] = []
        self._broken: set[str] = set()
        names = [host.name for host in self.world.topology.hosts if host.name != "internet"]
        self.hosts: dict[str, Host] = hosts_of(self.world, names, self.directory)
        addresses = [INSIDE, *UPLINKS.values(), *(host.address for host in self.hosts.values())]
        self.certificates = make_certificates(self.directory / "tls", dict.fromkeys(addresses))
        self._run("hs", self._hs_tables())
        self._run("nms", self._nms_tables())
        self.admin = Admin(self.hosts["nms"].namespace)
        wait_until(lambda: self.paths_on() == {1, 2}, 15, f"both paths to be ON\n{self.say()}")

    def _run(self, name: str, tables: list[tuple[str, Mapping[str, Any]]]) -> None:
        directory = self.hosts[name].directory
        config = directory / f"{name}.toml"
        config.write_text(toml(tables))
        server = Server(self.hosts[name].namespace, name, config, directory, directory)
        self.servers.append(server)
        wait_until(server.ready, 20, f"sipnemo {name} to be ready")

    def _tls(self) -> tuple[str, Mapping[str, Any]]:
        files = {"cert": self.certificates.certificate, "key": self.certificates.key, "ca": self.certificates.authority}
        return "[tls]", {name: str(file) for name, file in files.items()}

    def _hs_tables(self) -> list[tuple[str, Mapping[str, Any]]]:
        directory = self.hosts["hs"].directory
        listen = [f"{transport}:{HOME}:{PORTS[transport]}" for transport in ALL]
        password = str(secret(directory, "fleet", "rolling home"))
        return [
            ("[hs]", {"domain": HOME, "listen": listen, "store": f"sqlite:{directory}/home.db"}),
            ("[[account]]", {"name": "fleet", "password_file": password}),
            self._tls(),
        ]

    def _nms_tables(self) -> list[tuple[str, Mapping[str, Any]]]:
        directory = self.hosts["nms"].directory
        state = directory / "state"
        state.mkdir(exist_ok=True)
        password = str(secret(directory, "fleet", "rolling home"))
        tables: dict[str, Mapping[str, Any]] = {
            "[nms]": {
                "home": f"sip:{HOME}",
                "account": "fleet",
                "password_file": password,
                "state_dir": str(state),
                "manage_routes": True,
            },
            "[iface]": {"address": INSIDE, "transports": list(ALL)},
            "[probe]": {"probe_idle_every": 0.5, "hold_down": 0.5},
            "[damping]": {"suppress": 1000},  # tests cut the preferred uplink all the time
        }
        tables |= self.nms_tables
        efaces = [
            ("[[eface]]", {"id": number, "interface": f"wan{number}", "priority": number, "transports": list(ALL)})
            for number in (1, 2)
        ]
        return [*tables.items(), *efaces, self._tls()]


def tail(log: Path, lines: int = 40) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
