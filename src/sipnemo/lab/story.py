"""The demo's story: a gateway with two uplinks, real calls, and everything that can happen to an uplink.

Every program is the real one (`sipnemo hs`, `nms`, `phone`), in namespaces of its own; only the wires are ours. Calls
are made in both directions; uplink 1 is unplugged and plugged in again; uplink 2 goes silent and recovers; a path is
drained by command.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from sipnemo.lab.processes import SIPNEMO, ProgramError
from sipnemo.lab.report import Event, Move, Run, move_report
from sipnemo.lab.stage import Stage

MEASURED = 100
SPARSE_MS = 200
"""Of more calls so many are measured; in the others, packets come so seldom. All would be more than a small machine can
send, forward and receive in time, and its delays would be taken for the gateway's."""

SETTLE = 3.0
"Seconds left between the end of one thing and the next, so that every gap has its window."


class Demo(Stage):
    """One run, from the first namespace to the last figure."""

    def run(self) -> Run:
        """The whole story."""
        if self.calls > MEASURED:
            self.measure_every, self.sparse_ms = -(-self.calls // MEASURED), SPARSE_MS
        self.start_servers([{"id": n, "interface": f"wan{n}", "priority": n} for n in (1, 2)])
        self.start_phones()
        self.place_first(["inside" if number % 2 else "outside" for number in range(1, self.calls + 1)])
        self.until_heard()
        self.started_at = time.monotonic()
        self.wait(1.0)
        self.move("uplink 1 is unplugged", "uplink1", lambda: self.world.cut("uplink1", "carrier"))
        self.mend("uplink 1 is plugged in again", "uplink1", path=1)
        self.move("uplink 2 goes silent", "uplink2", lambda: self.world.cut("uplink2", "silent"))
        self.mend("uplink 2 answers again", "uplink2", path=2)
        self.move("sipnemo path 1 off", "uplink1", self.drain)
        self.hang_up()
        return self.record()

    def drain(self) -> float:
        """Do what an operator would: `sipnemo path 1 off`."""
        at = time.monotonic()
        done = self.world.host("nms").run([*SIPNEMO, "path", "1", "off"], capture_output=True, text=True)
        if done.returncode:
            raise ProgramError(f"sipnemo path 1 off: {done.stderr.strip() or done.stdout.strip()}")
        return at

    def move(self, text: str, line: str, act: Callable[[], float]) -> None:
        """Do something that makes calls move; wait until the gateway has moved them, and tell the gaps."""
        assert self.admin is not None
        known = {entry.get("move") for entry in self.admin.rows("moves")}
        sessions = self.admin.rows("sessions", fresh=True)
        self.events.append(Event(act(), text, line, expects_move=True))
        self.screen.say(text)
        with contextlib.suppress(TimeoutError):
            self.until(lambda: bool(self.new_moves(known)), "the calls to move", None, patience=10.0)
        self.wait(SETTLE)
        told = [self.told(entry, sessions) for entry in self.new_moves(known)]
        self.moves += told
        if not told:
            self.screen.say(f"the gateway has moved no call, although {text}")
        else:
            run = self.record()
            self.screen.gaps([move_report(run, move) for move in self.moves])

    def mend(self, text: str, line: str, path: int) -> None:
        """Restore a line and wait until the gateway trusts it again."""
        self.events.append(Event(self.world.restore(line), text, line))
        self.screen.say(text)
        self.until(lambda: self.path_is_on(path), f"path {path} to be ON again", self.servers["nms"])
        self.screen.say(f"path {path} is ON again (after hold-down)")
        self.wait(1.0)

    def new_moves(self, known: set[Any]) -> list[Mapping[str, Any]]:
        """The gateway's own account of moves that it has not told before and that moved any call, oldest first."""
        assert self.admin is not None
        found = [e for e in self.admin.rows("moves") if e.get("move") not in known and e.get("calls")]
        return sorted(found, key=lambda entry: float(entry.get("at") or 0.0))

    def told(self, entry: Mapping[str, Any], sessions: list[Mapping[str, Any]]) -> Move:
        """One of them, joined with what we did to the world and with the calls that were on the path before."""
        origin = str(entry.get("from_path", ""))
        # A path is called "1/198.51.100.7" there, and by its address in the Session List.
        names = (origin, origin.partition("/")[2])
        calls = tuple(str(row["call_id"]) for row in sessions if row.get("path") in names)
        targets = ", ".join(str(name) for name in entry.get("to_paths") or ())
        return Move(self.events[-1], str(entry.get("cause", "")), origin, targets, entry.get("at"), calls)
