"""The demo as it happens: a board that repaints itself on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sipnemo.lab import spread

LAST_LINES = 9


class Screen:
    """Where the demo tells its story; a context manager."""

    def __init__(self, out: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=out)
        self._live: Live | None = None
        self._now = now
        self._start = now()
        self._story: list[str] = []
        self._paths: Sequence[Mapping[str, Any]] = ()
        self._calls = ""
        self._moves: Sequence[Mapping[str, Any]] = ()

    def say(self, text: str) -> None:
        """One line of the story."""
        line = f"{self._now() - self._start:6.1f} s  {text}"
        self._story.append(line)
        if self._live is None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._repaint()

    def show(self, paths: Sequence[Mapping[str, Any]], calls: str) -> None:
        """The present state."""
        self._paths, self._calls = paths, calls
        self._repaint()

    def gaps(self, moves: Sequence[Mapping[str, Any]]) -> None:
        """The moves so far, as in report.json; the last one is told."""
        self._moves = moves
        move = moves[-1]
        names = ("gap_up_ms", "gap_down_ms", "lost_up", "lost_down")
        up, down, lost_up, lost_down = (spread_of(move, name) for name in names)
        cost = f"gap up {up} ms, down {down} ms; lost up {lost_up}, down {lost_down}"
        legend = f"[median{', p99' if many(move) else ''} (worst)]"
        self.say(f"{move['event']}: {move['calls_moved']} calls moved; {cost}  {legend}")
        for line in spread.lines(move):
            self.say(f"  {line}")

    def _repaint(self) -> None:
        if self._live is not None:
            self._live.update(self._board())

    def _board(self) -> Group:
        paths = Table("path", "device", "status", "round trip", "calls", title="SIP-NMS", expand=True)
        for path in self._paths:
            status = str(path.get("status", ""))
            colour = "green" if status == "ON" else "red"
            paths.add_row(
                str(path.get("path", "")),
                str(path.get("device", "")),
                Text(status, style=f"bold {colour}"),
                milliseconds(path.get("rtt")),
                str(path.get("sessions", "")),
            )
        moves = Table("move", "noticed", "calls", "gap up", "gap down", "lost up", "lost down", expand=True)
        for move in self._moves:
            names = ("gap_up_ms", "gap_down_ms", "lost_up", "lost_down")
            moves.add_row(
                str(move["event"]),
                "" if move["detected_ms"] is None else f"{move['detected_ms']:g} ms",
                str(move["calls_moved"]),
                *(spread_of(move, name) for name in names),
            )
        story = Panel(Text("\n".join(self._story[-LAST_LINES:])), title=self._calls or "starting")
        return Group(paths, moves, story) if self._moves else Group(paths, story)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(self._board(), console=self._console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def milliseconds(seconds: Any) -> str:
    """A span for people."""
    return f"{seconds * 1e3:.0f} ms" if isinstance(seconds, int | float) else ""


def many(move: Mapping[str, Any]) -> bool:
    """Whether percentiles say more than median and worst."""
    return len(move["per_call"]) >= spread.MANY


def spread_of(move: Mapping[str, Any], name: str) -> str:
    """Median and, in brackets, the worst; of many calls the 99th percentile as well."""
    found = move[name]
    return f"{found['median']:g}{', {:g}'.format(found['p99']) if many(move) else ''} ({found['worst']:g})"
