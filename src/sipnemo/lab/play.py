"""A scenario, played in real time by the real programs: the world it names and its time line."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from sipnemo.lab import tally
from sipnemo.lab.chronicle import Chronicle
from sipnemo.lab.live import Screen
from sipnemo.lab.processes import SIPNEMO, ProgramError, Server
from sipnemo.lab.report import Run
from sipnemo.lab.scenario import CUTS, Scenario, Step
from sipnemo.lab.stage import AT_ONCE, Stage
from sipnemo.lab.tally import Side
from sipnemo.lab.topology import World, uplink_addresses


class Play(Stage):
    """One run of a scenario."""

    def __init__(
        self, scenario: Scenario, world: World, directory: Path, logs: Path, screen: Screen, stack: ExitStack
    ) -> None:
        """`directory` is for what only the programs read; their logs go to `logs`, beside the report."""
        super().__init__(scenario.calls, scenario.rtt_ms, world, directory, logs, screen, stack)
        self.scenario = scenario
        self.measure_every, self.sparse_ms = scenario.measure_every, scenario.sparse_ms
        self.chronicle = Chronicle(scenario)
        self.events = self.chronicle.events
        self.commands: list[tuple[str, subprocess.Popen[str]]] = []
        self.next = 1
        self.broken: set[int] = set()
        "Uplinks that are cut."
        self.hosts = {uplink.id: 7 for uplink in scenario.uplinks}
        "The host part of each uplink's address."

    def run(self) -> Run:
        """From the first namespace to the last figure."""
        scenario = self.scenario
        self.start_servers(scenario.efaces, scenario.gateway)
        self.start_phones(["--answer", f"{scenario.ring * 1e3:.0f}"] if scenario.ring else [])
        first: list[Side] = ["inside"] * scenario.from_inside
        first += ["outside"] * scenario.from_outside
        self.place_first(first)
        self.next = len(first) + 1
        self.until_heard()
        self.started_at = time.monotonic()
        for step in scenario.timeline():
            self.wait_until(self.started_at + step.at)
            self.carry_out(step)
        self.wait_until(self.started_at + scenario.lasts)
        for command, process in self.commands:
            self.finish(command, process)
        self.ask()
        self.chronicle.on = [number for number in scenario.names if self.path_is_on(number)]
        self.hang_up()
        self.moves = self.chronicle.moves()
        return self.record()

    # ------------------------------------------------------------------------------------------------- deeds

    def carry_out(self, step: Step) -> None:
        """One deed of the time line, noted with its instant."""
        if self.calls <= AT_ONCE or step.do == "hang-up":
            self.ask()  # of hundreds of calls that would keep the gateway from what is looked at; it remembers enough
        event = self.chronicle.note(step, self.act(step))
        if not step.minor:
            self.screen.say(event.text)

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
                return self.start(self.servers[step.server])
        return time.monotonic()

    def restore(self, number: int) -> float:
        """Mend the line and make it as good as it was at first."""
        quality = self.scenario.uplink(number).quality
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
            self.start(server)
        return at

    def start(self, server: Server) -> float:
        """Run a server again; what comes next on the time line waits until it serves, however slow the machine."""
        at = time.monotonic()
        server.start_again()
        self.until(server.ready, f"{server.name} to be ready again", server)
        return at

    def call(self, caller: Side) -> None:
        """Make the next call."""
        self.place(self.next, caller)
        self.next += 1

    def hang_up_some(self, count: int) -> None:
        """Hang up the oldest calls that live."""
        for placed, call_id in tally.oldest_live(self.placed, self.facts(), count):
            placed.hung_up_at = time.monotonic()
            self.inside.command(f"hangup {call_id}")

    def finish(self, command: str, process: subprocess.Popen[str]) -> None:
        """See a command end; remember it when it failed."""
        try:
            said, _ = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"sipnemo {command}: has not ended") from None
        if process.returncode:
            self.chronicle.failed_commands.append(f"sipnemo {command}: {said.strip()}")

    # --------------------------------------------------------------------------------------------- what is known

    def ask(self) -> None:
        """Hear the gateway about its moves and calls."""
        assert self.admin is not None
        self.chronicle.hear(self.admin.rows("moves", fresh=True), self.admin.rows("sessions", fresh=True))
