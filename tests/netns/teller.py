"""A program in a host of a test that tells of links, and keeps routes when asked to."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sipnemo.lab.namespace import Namespace

TELLER = str(Path(__file__).with_name("link_teller.py"))


class Teller:
    """A program in a host that tells of links."""

    def __init__(self, host: Namespace, interfaces: str = "", uplinks: str = "", gateways: Any = None) -> None:
        self.links: dict[str, dict[str, Any]] = {}
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.process = host.popen(
            [sys.executable, TELLER, interfaces, uplinks, json.dumps(gateways or {})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        while "started" not in (line := self._next()):
            self._take(line)

    def until(self, condition: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, Any]:
        """Wait until what was told fulfils the condition; the last line."""
        line: dict[str, Any] = {}
        while not condition(self.links):
            line = self._next()
            self._take(line)
        return line

    def end(self) -> str:
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.close()
        errors = self.process.stderr.read()
        assert self.process.wait(10) == 0, errors
        self._reader.join()
        return str(errors)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def _next(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self._lines.get(timeout=10))
        return line

    def _take(self, line: dict[str, Any]) -> None:
        self.links[line["name"]] = line
