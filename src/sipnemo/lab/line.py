"""A delay line as its owner sees it: two processes, one per direction, changed while they run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sipnemo.lab.delay import Message, Packet, read_messages, read_packets
from sipnemo.lab.namespace import Namespace

Direction = Literal["up", "down"]
PROGRAM = str(Path(__file__).with_name("delay.py"))


@dataclass(frozen=True, slots=True)
class Quality:
    """What a link does to packets, the same in both directions."""

    delay: float = 25.0
    "One way, in milliseconds."

    jitter: float = 0.0
    "At most this much more or less, in milliseconds; order is kept."

    loss: float = 0.0
    "Percent, each packet by itself."

    rate: float = 0.0
    "Mbit/s; 0 is without limit. What would wait longer than half a second is dropped."


class DelayLine:
    """Frames between two devices of one host (which is nothing but the wire), each direction with its own fate."""

    def __init__(
        self, wire: Namespace, inside: str, outside: str, quality: Quality, record: Path | None = None
    ) -> None:
        self.record = record
        self._running: dict[Direction, subprocess.Popen[str]] = {
            "up": self._start(wire, inside, outside, quality, "up"),
            "down": self._start(wire, outside, inside, quality, "down"),
        }
        for direction in self._running:
            self._answer(direction)

    def set(self, direction: Direction | None = None, **changes: Any) -> float:
        """Change `delay`, `jitter`, `loss`, `rate` or `black_hole`, in one direction or both; returns when."""
        chosen: list[Direction] = [direction] if direction else ["up", "down"]
        for one in chosen:
            pipe = self._running[one].stdin
            assert pipe is not None
            pipe.write(json.dumps(changes) + "\n")
            pipe.flush()
        return max(self._answer(one) for one in chosen)

    def packets(self, direction: Direction) -> list[Packet]:
        """What has been recorded up to now."""
        return read_packets(self._file(direction, flush=True))

    def messages(self, direction: Direction) -> list[Message]:
        """The SIP messages recorded up to now."""
        return read_messages(self._file(direction, flush=True))

    def close(self) -> None:
        """End both processes; recordings stay readable by `read_packets`."""
        for process in self._running.values():
            process.terminate()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _start(
        self, wire: Namespace, source: str, target: str, quality: Quality, direction: Direction
    ) -> subprocess.Popen[str]:
        argv = [sys.executable, "-I", "-S", PROGRAM, source, target]
        argv += ["--delay", str(quality.delay), "--jitter", str(quality.jitter)]
        argv += ["--loss", str(quality.loss), "--rate", str(quality.rate)]
        if self.record is not None:
            argv += ["--record", self._file(direction)]
        return wire.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _file(self, direction: Direction, flush: bool = False) -> str:
        if self.record is None:
            raise ValueError("this line does not record")
        if flush and self._running[direction].poll() is None:
            self.set(direction)
        return f"{self.record}.{direction}"

    def _answer(self, direction: Direction) -> float:
        pipe = self._running[direction].stdout
        assert pipe is not None
        line = pipe.readline()
        if not line:
            raise RuntimeError(f"the delay line ({direction}) has ended; its own message is above")
        return float(json.loads(line)["at"])


def start_tap(wire: Namespace, devices: Sequence[str], prefix: Path) -> subprocess.Popen[str]:
    """Record the SIP messages at these devices from now on; read them with `read_messages(f"{prefix}.{device}")`."""
    argv = [sys.executable, "-I", "-S", PROGRAM, *devices, "--tap", "--record", str(prefix)]
    process = wire.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdout is None or not process.stdout.readline():
        raise RuntimeError("the tap has ended; its own message is above")
    return process
