"""kill -9 of the SIP-HS at any moment loses no binding that it confirmed with 200."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sipnemo.sip.digest_client import ClientAuth, Credentials
from sipnemo.sip.errors import ParseError
from sipnemo.sip.message import Response
from sipnemo.sip.parser import parse

ROUNDS = 6
GATEWAYS = 5
PATHS = 3
SEED = 20_261_123


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class HomeServer:
    """`sipnemo hs` on the loopback, with its store in a directory of its own."""

    directory: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        (self.directory / "password").write_text("secret\n")
        (self.directory / "password").chmod(0o600)
        self.config = self.directory / "hs.toml"
        self.config.write_text(
            f'[hs]\ndomain = "127.0.0.1:{self.port}"\nlisten = ["udp:127.0.0.1:{self.port}"]\n'
            f'store = "sqlite:{self.directory}/home.db"\n\n'
            f'[admin]\nlisten = "unix:{self.directory}/admin"\n\n'
            '[[account]]\nname = "fleet"\npassword_file = "password"\n'
        )

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The process, killed at the end without a warning."""
        with (self.directory / "log").open("ab") as log:
            command = [sys.executable, "-m", "sipnemo", "hs", "--config", str(self.config)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


class Client:
    """A raw UDP client that stands for every path of every gateway."""

    def __init__(self, server: HomeServer) -> None:
        self.server = ("127.0.0.1", server.port)
        self.domain = f"127.0.0.1:{server.port}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.auth = ClientAuth(Credentials("fleet", "secret"))
        self.serial = 0

    def register(self, line: str, patience: float) -> Response | None:
        """Send one REGISTER, with credentials when they are asked for; None when no answer comes."""
        uri = f"sip:{self.domain}"
        sent: list[str] = []
        for _ in range(3):
            self.serial += 1
            credentials = self.auth.authorization("REGISTER", uri, "", f"c{self.serial}")
            sent = [value for _, value in credentials]
            lines = [
                f"REGISTER {uri} SIP/2.0",
                f"Via: SIP/2.0/UDP 127.0.0.1:{self.socket.getsockname()[1]};rport;branch=z9hG4bK{self.serial}",
                "Max-Forwards: 70",
                f"From: <sip:fleet@{self.domain}>;tag=1",
                f"To: <sip:fleet@{self.domain}>",
                "Call-ID: kill",
                f"CSeq: {self.serial} REGISTER",
                *(f"{name}: {value}" for name, value in credentials),
                *([line] if line else []),
                "Content-Length: 0",
            ]
            answer = self._ask("\r\n".join((*lines, "", "")).encode("latin-1"), patience)
            if answer is None or answer.status != 401:
                return answer
            assert self.auth.challenged(401, answer.values_raw("www-authenticate"), sent)
        raise AssertionError("challenged for ever")

    def _ask(self, data: bytes, patience: float) -> Response | None:
        end = time.monotonic() + patience
        with suppress(OSError):  # a dead server's port is unreachable
            self.socket.sendto(data, self.server)
            while (left := end - time.monotonic()) > 0:
                self.socket.settimeout(left)
                with suppress(ParseError):
                    answer = parse(self.socket.recv(65535))
                    if isinstance(answer, Response) and answer.cseq == self.serial:
                        return answer
        return None


def contacts(answer: Response) -> dict[str, str]:
    """Every Contact of a 200: which path of which gateway, and its address."""
    found = {}
    for value in answer.values("contact"):
        uri, _, params = value.partition(">")
        fields = dict(item.partition("=")[::2] for item in params.split(";"))
        found[f"{fields['+sip.instance']} {fields['reg-id']}"] = uri.lstrip("<")
    return found


@pytest.mark.req("RO-2", "MH-7")
def test_no_confirmed_binding_is_lost_by_kill_9(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    server = HomeServer(tmp_path)
    client = Client(server)
    confirmed: dict[str, str] = {}
    perhaps: dict[str, str] = {}
    "Asked for, but the server died before it said anything."
    confirmations = 0
    with client.socket:
        for turn in range(ROUNDS + 1):
            with server.running() as process:
                answer = None
                until = time.monotonic() + 30.0
                while answer is None:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    assert time.monotonic() < until, (tmp_path / "log").read_text()
                    answer = client.register("", 0.2)
                assert answer.status == 200, answer.start_line
                present = contacts(answer)
                for path, uri in confirmed.items():
                    assert present.get(path) in (uri, perhaps.get(path, uri)), f"lost {path} in round {turn}"
                confirmed, perhaps = present, {}
                if turn == ROUNDS:
                    break
                killer = threading.Timer(chance.uniform(0.01, 0.4), process.kill)
                killer.start()
                while process.poll() is None:
                    gateway, path_id = chance.randrange(GATEWAYS), 1 + chance.randrange(PATHS)
                    instance = f'"<urn:uuid:00000000-0000-0000-0000-{gateway:012}>"'
                    path, uri = f"{instance} {path_id}", f"sip:127.0.0.1:{chance.randrange(1024, 65536)}"
                    line = f"Contact: <{uri}>;q=0.{path_id};reg-id={path_id};+sip.instance={instance};expires=3600"
                    perhaps[path] = uri
                    registered = client.register(line, 0.5)
                    if registered is None:
                        break
                    assert registered.status == 200, registered.start_line
                    confirmed[path] = perhaps.pop(path)
                    confirmations += 1
                killer.join()
    assert confirmations > ROUNDS * 5
