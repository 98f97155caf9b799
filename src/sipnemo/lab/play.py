"""A scenario, played: the world it names, its time line in real time, and what the gateway said of every move."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sipnemo.lab.live import Screen
from sipnemo.lab.processes import SIPNEMO, ProgramError
from sipnemo.lab.report import Event, Move, Run
from sipnemo.lab.scenario import CUTS, Scenario, Step
from sipnemo.lab.stage import Stage
from sipnemo.lab.topology import World, uplink_addresses

EARLY = 0.02
"Seconds by which the gateway may seem to have noticed something before it was done."


class Play(Stage):
    """One run of a scenario."""

    def __init__(
        self, scenario: Scenario, world: World, directory: Path, logs: Path, screen: Screen, stack: ExitStack
    ) -> None:
        """`directory` is for what only the programs read; their logs go to `logs`, beside the report."""
        rtt = min(2 * uplink.quality.delay for uplink in scenario.uplinks)
        super().__init__(scenario.calls, rtt, world, directory, logs, screen, stack)
        self.scenario = scenario
        self.done: dict[int, list[Event]] = {}
        "What has been done, by number of the file's event."
        self.waves: dict[tuple[float, int], Mapping[str, Any]] = {}
        "The gateway's own account of its moves."
        self.sessions: dict[str, Mapping[str, Any]] = {}
        "The last that the gateway told of each call."
        self.commands: list[tuple[str, subprocess.Popen[str]]] = []
        self.failed_commands: list[str] = []
        self.harmless: list[Event] = []
        "Those that no call moves for: calls made and hung up."
        self.next = 1
        self.broken: set[int] = set()
        "Uplinks that are cut."
        self.hosts = {uplink.id: 7 for uplink in scenario.uplinks}
        "The host part of each uplink's address."

    def run(self) -> Run:
        """From the first namespace to the last figure."""
        scenario = self.scenario
        efaces = [{"id": u.id, "interface": f"wan{u.id}", "families": ["ipv4"], **u.eface} for u in scenario.uplinks]
        self.start_servers(efaces, scenario.gateway)
        self.start_phones(["--answer", f"{scenario.ring * 1e3:.0f}"] if scenario.ring else [])
        first = ["inside"] * scenario.from_inside + ["outside"] * scenario.from_outside
        for caller in first:
            self.call("inside" if caller == "inside" else "outside")
        self.until_heard()
        self.started_at = time.monotonic()
        for step in scenario.timeline():
            self.wait_until(self.started_at + step.at)
            self.carry_out(step)
        self.wait_until(self.started_at + scenario.lasts)
        for command, process in self.commands:
            self.finish(command, process)
        self.ask()
        self.hang_up()
        self.moves = self.told()
        return self.record()

    # ------------------------------------------------------------------------------------------------- deeds

    def carry_out(self, step: Step) -> None:
        """One deed of the time line, noted with its instant."""
        self.ask()
        text = step.text(self.scenario.names)
        line = f"uplink{step.uplink}" if step.uplink else self.line_of(step.command)
        touches = bool(line) and step.do != "flap"
        at = self.act(step)
        event = Event(at, text, line, expects_move=bool(step.expect.get("moved")), closes=touches, minor=step.minor)
        self.events.append(event)
        self.done.setdefault(step.number, []).append(event)
        if step.do in ("call", "hang-up"):
            self.harmless.append(event)
        if not step.minor:
            self.screen.say(text)

    def act(self, step: Step) -> float:
        """Do it; returns when."""
        line = f"uplink{step.uplink}"
        match step.do:
            case "carrier-down" | "address-gone" | "silent":
                self.broken.add(step.uplink)
                return self.world.cut(line, CUTS[step.do], step.way)
            case "restore":
                return self.restore(step.uplink)
            case "change":
                return self.world.line(line).set(step.way, **step.change)
            case "renumber":
                host = self.hosts[step.uplink] = self.hosts[step.uplink] + 1
                return self.world.renumber(line, uplink_addresses(step.uplink, host)[0])
            case "call":
                for _ in range(step.calls):
                    self.call(step.caller)
            case "hang-up":
                self.hang_up_some(step.calls)
            case "command":
                at = time.monotonic()
                argv = [*SIPNEMO, *step.command.split()]
                pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
                self.commands.append((step.command, self.world.host("nms").popen(argv, **pipes)))
                return at
            case "stop" | "kill" | "restart":
                return self.stop(step)
            case "start":
                self.servers[step.server].start_again()
        return time.monotonic()

    def restore(self, number: int) -> float:
        """Mend the line and make it as good as it was at first."""
        uplink = next(uplink for uplink in self.scenario.uplinks if uplink.id == number)
        quality = uplink.quality
        line = self.world.line(f"uplink{number}")
        at = line.set(delay=quality.delay, jitter=quality.jitter, loss=quality.loss, rate=quality.rate)
        if number in self.broken:
            self.broken.discard(number)
            at = self.world.restore(f"uplink{number}")
        return at

    def stop(self, step: Step) -> float:
        """End a server, and with `restart` run it anew at once."""
        at = time.monotonic()
        server = self.servers[step.server]
        server.stop(at_once=step.do == "kill")
        if step.do == "restart":
            self.until(lambda: server.process.poll() is not None, f"{step.server} to end", server)
            server.start_again()
        return at

    def call(self, caller: Any) -> None:
        """Make the next call."""
        self.place(self.next, caller)
        self.next += 1

    def hang_up_some(self, count: int) -> None:
        """Hang up the oldest calls that live."""
        known = self.facts()
        for number, placed in sorted(self.placed.items()):
            fact = known.get(f"in{number}", {})
            if count and placed.hung_up_at is None and "answered" in fact and "ended" not in fact:
                placed.hung_up_at = time.monotonic()
                self.inside.command(f"hangup {fact['call_id']}")
                count -= 1

    def finish(self, command: str, process: subprocess.Popen[str]) -> None:
        """See a command end; remember it when it failed."""
        try:
            said, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"sipnemo {command}: has not ended") from None
        if process.returncode:
            self.failed_commands.append(f"sipnemo {command}: {said.strip()}")

    # --------------------------------------------------------------------------------------------- what is known

    def ask(self) -> None:
        """Hear the gateway about its moves and calls: it forgets the oldest."""
        assert self.admin is not None
        for row in self.admin.rows("moves", fresh=True):
            if row.get("calls"):
                self.waves[float(row["at"]), int(row["move"])] = row
        for row in self.admin.rows("sessions", fresh=True):
            self.sessions[str(row["call_id"])] = row

    def told(self) -> list[Move]:
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

    def line_of(self, command: str) -> str:
        """The line that `path 1 off` is about."""
        words = command.split()
        return f"uplink{words[1]}" if len(words) > 2 and words[0] == "path" else ""
