"""`sipnemo phone --json` as a process: give it commands, wait for its events."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

Event = dict[str, Any]
Popen = Callable[..., "subprocess.Popen[bytes]"]


class PhoneProcess:
    """One process; ends with the `with` block."""

    def __init__(self, *flags: str | Path, popen: Popen = subprocess.Popen, log: Path | None = None) -> None:
        """`popen`: where to start it, for example a namespace's; `log`: where its stderr goes."""
        words = [sys.executable, "-m", "sipnemo.app.phone", "--json", *map(str, flags)]
        errors = log.open("ab") if log is not None else None
        try:
            self.process = popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors or subprocess.DEVNULL
            )
        finally:
            if errors is not None:
                errors.close()
        self.events: list[Event] = []
        self._rest = b""

    def __enter__(self) -> PhoneProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def command(self, *words: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words).encode() + b"\n")
        self.process.stdin.flush()

    def all(self, name: str) -> list[Event]:
        """Every event of this name so far."""
        self._read(0.0)
        return [event for event in self.events if event["event"] == name]

    def wait_for(self, name: str, timeout: float = 20.0, number: int = 1) -> Event:
        """The `number`th event of this name since the start."""
        until = time.monotonic() + timeout
        while True:
            found = [event for event in self.events if event["event"] == name]
            if len(found) >= number:
                return found[number - 1]
            left = until - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {name!r} among {[event['event'] for event in self.events]}")

    def wait_for_packets(self, packets: int, timeout: float = 20.0) -> Event:
        """Ask for reports until one stream has received this many packets."""
        until = time.monotonic() + timeout
        number = len(self.all("stream"))
        while time.monotonic() < until:
            number += 1
            self.command("report")
            report = self.wait_for("stream", timeout, number)
            if report["packets"] >= packets:
                return report
        raise AssertionError(f"not {packets} packets within {timeout:g} s")

    def pause(self) -> None:
        """Stop the process where it stands."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        self.process.send_signal(signal.SIGCONT)

    def end(self, timeout: float = 20.0) -> int:
        """Wait until it ends by itself; its exit status."""
        until = time.monotonic() + timeout
        while self._read(max(0.0, until - time.monotonic())):
            pass
        return self.process.wait(max(1.0, until - time.monotonic()))

    def _read(self, patience: float) -> bool:
        """Take in what it has printed; whether more may come."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while select.select([descriptor], [], [], patience)[0]:
            data = os.read(descriptor, 65536)
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.events += [json.loads(line) for line in lines]
            if lines:
                return True
        return False


def free_port() -> int:
    """A port of the loopback address that is free for UDP and TCP now."""
    for _ in range(50):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = int(udp.getsockname()[1])
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def loopback(name: str, ports: str, *flags: str) -> tuple[Sequence[str], str]:
    """Flags for a phone on the loopback address, and its URI."""
    port = free_port()
    words = ("--account", name, "--bind", f"127.0.0.1:{port}", "--rtp-ports", ports, *flags)
    return words, f"sip:{name}@127.0.0.1:{port}"
