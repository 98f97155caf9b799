"""What went into a node, as JSON lines, so that an incident can be run again exactly.

The first line holds the `Environment`; every other line is `[now, kind, fields]`. Octets are Latin-1 text. The file
holds what the node saw, credentials included: it is made readable to its owner only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from sipnemo.media.flow import FlowKey
from sipnemo.roles.node import (
    Action,
    Answer,
    Closed,
    Command,
    Counted,
    Environment,
    Input,
    Learned,
    Link,
    Node,
    Received,
    SendFailed,
    Stop,
    Stored,
    Tick,
)
from sipnemo.sip.flow import Flow, Local

DEFAULT_LIMIT = 1 << 30
"Octets after which a recording is not continued, so that a forgotten one does not fill the disk."


class Recorder:
    """Writes every input with its instant to a file."""

    def __init__(self, path: str | Path, environment: Environment, limit: int = DEFAULT_LIMIT) -> None:
        self.path = Path(path)
        self._left = limit
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file: TextIO | None = open(descriptor, "w", encoding="ascii")  # noqa: SIM115
        self._write(
            {"seed": environment.seed, "wall_clock": environment.wall_clock, "stored": _plain(environment.stored)}
        )

    def record(self, now: float, input: Input) -> None:
        """Append one input."""
        if self._file is not None:
            self._write([now, type(input).__name__, _encode(input)])

    def flush(self) -> None:
        """Bring what was recorded to the file, so that it can be read after a bug."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """End the recording."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: Any) -> None:
        assert self._file is not None
        text = json.dumps(line, separators=(",", ":"))
        self._left -= len(text) + 1
        if self._left < 0:
            self.close()
        else:
            self._file.write(text + "\n")


def replay(
    path: str | Path, node_factory: Callable[[Environment], Node]
) -> Iterator[tuple[float, Input, list[Action]]]:
    """Run a recording again; yields every instant, input and what the node made of it."""
    with open(path, encoding="ascii") as lines:
        node = node_factory(Environment(**json.loads(next(lines))))
        for line in lines:
            if not line.endswith("\n"):
                return  # the process was killed while it wrote this line
            now, kind, fields = json.loads(line)
            input = _DECODERS[kind](fields)
            yield now, input, node.handle(input, now)


def _encode(input: Input) -> list[Any]:
    match input:
        case Received(data, flow):
            return [data.decode("latin-1"), flow]
        case Counted(ticket, counters):
            return [ticket, [[key, value] for key, value in counters.items()]]
        case Command(ticket, name, arguments):
            return [ticket, name, dict(arguments)]
        case _:
            return list(input)


def _plain(value: Any) -> Any:
    return {key: dict(rows) for key, rows in value.items()}


def _flow(fields: list[Any]) -> Flow:
    local, remote = fields
    return Flow(Local(*local), (remote[0], remote[1]))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


_DECODERS: dict[str, Callable[[list[Any]], Input]] = {
    "Received": lambda f: Received(f[0].encode("latin-1"), _flow(f[1])),
    "SendFailed": lambda f: SendFailed(_flow(f[0]), f[1]),
    "Closed": lambda f: Closed(_flow(f[0])),
    "Answer": lambda f: Answer(f[0], _tuples(f[1]), f[2]),
    "Link": lambda f: Link(f[0], f[1], f[2], _tuples(f[3])),
    "Learned": lambda f: Learned(FlowKey(*f[0]), _tuples(f[1])),
    "Counted": lambda f: Counted(f[0], {FlowKey(*key): _tuples(value) for key, value in f[1]}),
    "Stored": lambda f: Stored(f[0], f[1]),
    "Command": lambda f: Command(f[0], f[1], f[2]),
    "Tick": lambda f: Tick(),
    "Stop": lambda f: Stop(),
}
