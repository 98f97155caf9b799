"""The programs of the demo, each in its host, and the little that must be known to talk with them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sipnemo.lab.namespace import Namespace

SIPNEMO = (sys.executable, "-m", "sipnemo")
FRESH = 0.2
"Seconds."

FETCH = str(Path(__file__).with_name("fetch.py"))


class ProgramError(RuntimeError):
    """A program did not do what it should; the text ends with the last lines of its log."""


class Program:
    """`sipnemo ARGUMENTS` in a host, logging into a file."""

    def __init__(self, host: Namespace, name: str, arguments: Sequence[str], logs: Path, **options: Any) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        self.log.write_bytes(b"")
        self.stopped = False
        "It was ended on purpose."
        self._started = host, [*SIPNEMO, *arguments], options
        self.process = self._popen()

    def start_again(self) -> None:
        """Run it anew, after it has ended; its log goes on."""
        self.process.wait()
        self.process = self._popen()
        self.stopped = False

    def _popen(self) -> subprocess.Popen[Any]:
        host, argv, options = self._started
        with self.log.open("ab") as log:
            return host.popen(argv, stderr=log, **options)

    def check(self) -> None:
        """Raise when the program has ended of itself."""
        status = self.process.poll()
        if status is not None and not self.stopped:
            raise self.complaint(f"ended with status {status}")

    def complaint(self, what: str) -> ProgramError:
        """An error about this program, with the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-12:]
        return ProgramError("\n  ".join([f"{self.name}: {what}; the end of {self.log}:", *lines]))

    def stop(self, at_once: bool = False) -> None:
        """Ask it to end, or kill it."""
        self.stopped = True
        if self.process.poll() is None:
            (self.process.kill if at_once else self.process.terminate)()


class Server(Program):
    """`sipnemo hs` or `sipnemo nms`; says when it is ready as it would tell systemd."""

    def __init__(self, host: Namespace, name: str, config: Path, directory: Path, logs: Path) -> None:
        address = directory / f"{name}.notify"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(address))
        self._notify.setblocking(False)
        environment = {**os.environ, "NOTIFY_SOCKET": str(address)}
        self._ready = False
        super().__init__(host, name, [name, "--config", str(config)], logs, env=environment)

    def start_again(self) -> None:
        """Run it anew, and it is not ready until it says so again."""
        self._ready = False
        super().start_again()

    def ready(self) -> bool:
        """Whether it has said READY=1 since it was started."""
        self.check()
        while not self._ready:
            try:
                self._ready = b"READY=1" in self._notify.recv(4096)
            except BlockingIOError:
                break
        return self._ready

    def close(self) -> None:
        """Close what the starter holds of it."""
        self._notify.close()


class Phones(Program):
    """`sipnemo phone` with many accounts: its events as they come, and commands to it."""

    def __init__(self, host: Namespace, name: str, arguments: Sequence[str], logs: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        super().__init__(host, name, ["phone", *arguments], logs, **pipes)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def command(self, text: str) -> None:
        """Type a command."""
        pipe = self.process.stdin
        assert pipe is not None
        try:
            pipe.write(text + "\n")
            pipe.flush()
        except BrokenPipeError:
            raise self.complaint("takes no more commands") from None

    def take(self) -> list[dict[str, Any]]:
        """The events that have come since the last time; they are also kept in `events`."""
        new = []
        while not self._lines.empty():
            new.append(json.loads(self._lines.get()))
        self.events += new
        return new

    def count(self, event: str) -> int:
        """How many events of this kind have come, of different calls or accounts."""
        return len({(e.get("account"), e.get("call_id")) for e in self.events if e.get("event") == event})

    def close(self) -> None:
        """Wait for the reader; the process must have ended."""
        self._reader.join(timeout=5)

    def _read(self) -> None:
        pipe = self.process.stdout
        assert pipe is not None
        with contextlib.suppress(ValueError):  # closed under our eyes: the process has ended
            for line in pipe:
                if line.startswith("{"):
                    self._lines.put(line)


class Admin:
    """What a server's admin interface says, asked from outside its host."""

    def __init__(self, host: Namespace, address: str = "127.0.0.1", port: int = 8470) -> None:
        self._known: dict[str, tuple[float, list[Mapping[str, Any]]]] = {}
        argv = [sys.executable, "-I", "-S", FETCH, address, str(port)]
        self._process = host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rows(self, name: str, fresh: bool = False) -> list[Mapping[str, Any]]:
        """What `/api/NAME` lists, now or as of at most `FRESH` ago: spectators must not slow down what they watch."""
        at, found = self._known.get(name, (0.0, []))
        if fresh or time.monotonic() - at > FRESH:
            answer = self.get(f"/api/{name}")
            listed = answer.get(name) if isinstance(answer, dict) else answer
            found = listed if isinstance(listed, list) else []
            self._known[name] = (time.monotonic(), found)
        return found

    def get(self, path: str) -> Any:
        """The JSON at this path, or None."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(path + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline() or "null")


def secret(directory: Path, name: str, value: str) -> Path:
    """A password file that only its owner reads."""
    path = directory / f"{name}.password"
    path.touch(mode=0o600)
    path.write_text(value + "\n")
    return path


def toml(tables: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A configuration file: headers as written, such as "[nms]" or "[[eface]]", each with its keys."""
    # JSON's strings, numbers, booleans and lists of them are TOML's.
    blocks = ["\n".join([head, *(f"{k} = {json.dumps(v)}" for k, v in keys.items())]) for head, keys in tables]
    return "\n\n".join(blocks) + "\n"
