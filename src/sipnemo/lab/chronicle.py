"""What is written down while a scenario is played: what was done when, and what the gateway said of every move.

It is the same whether time is real (`play.py`) or virtual (`simulated.py`); `verdict.py` judges by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sipnemo.lab.report import Event, Move
from sipnemo.lab.scenario import Scenario, Step

EARLY = 0.02
"Seconds by which the gateway may seem to have noticed something before it was done."

Row = Mapping[str, Any]


class Chronicle:
    """Of one run."""

    def __init__(self, scenario: Scenario, virtual: bool = False) -> None:
        self.scenario = scenario
        self.virtual = virtual
        "Nothing took longer than it had to: no machine was busy."
        self.events: list[Event] = []
        self.done: dict[int, list[Event]] = {}
        "What has been done, by number of the file's event."
        self.harmless: list[Event] = []
        "Those that no call moves for: calls made and hung up."
        self.waves: dict[tuple[float, int], Row] = {}
        "The gateway's own account of its moves."
        self.sessions: dict[str, Row] = {}
        "The last that the gateway told of each call."
        self.failed_commands: list[str] = []
        self.on: list[int] = []
        "Uplinks that are ON at the end."
        self.left = ""
        "What the gateway still holds when all calls are over, where that was looked at."

    def note(self, step: Step, at: float) -> Event:
        """A deed has been done."""
        line = f"uplink{step.uplink}" if step.uplink else line_of(step.command)
        event = Event(
            at,
            step.text(self.scenario.names),
            line,
            expects_move=bool(step.expect.get("moved")),
            closes=bool(line) and step.do != "flap",
            minor=step.minor,
        )
        self.events.append(event)
        self.done.setdefault(step.number, []).append(event)
        if step.do in ("call", "hang-up"):
            self.harmless.append(event)
        return event

    def hear(self, moves: Iterable[Row], sessions: Iterable[Row]) -> None:
        """The gateway's moves and calls as it tells them now; it forgets the oldest."""
        for row in moves:
            if row.get("calls"):
                self.waves[float(row["at"]), int(row["move"])] = row
        for row in sessions:
            self.sessions[str(row["call_id"])] = row

    def moves(self) -> list[Move]:
        """The gateway's moves, each joined with the event that made it."""
        moves = []
        for (at, _), row in sorted(self.waves.items()):
            event = self.cause(at, str(row["from_path"]))
            calls = tuple(str(one["call_id"]) for one in row.get("each", ()))
            targets = ", ".join(str(name) for name in row.get("to_paths") or ())
            took = row.get("duration_ms")
            done = None if took is None else at + float(took) / 1e3
            if event is not None:
                moves.append(Move(event, str(row["cause"]), str(row["from_path"]), targets, at, calls, done))
        return moves

    def cause(self, at: float, path: str) -> Event | None:
        """The last thing done before to the path's own line or to a server, else to any line."""
        before = [event for event in self.events if event.at <= at + EARLY and event not in self.harmless]
        line = f"uplink{path.partition('/')[0]}"
        near = [event for event in before if event.line == line or not event.closes]
        found = near or before
        return found[-1] if found else None


def line_of(command: str) -> str:
    """The line that `path 1 off` is about."""
    words = command.split()
    return f"uplink{words[1]}" if len(words) > 2 and words[0] == "path" else ""
