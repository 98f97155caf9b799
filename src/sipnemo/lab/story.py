"""The demo's story: a gateway with two uplinks, real calls, and everything that can happen to an uplink.

Every program is the real one (`sipnemo hs`, `nms`, `phone`), in namespaces of its own; only the wires are ours. Calls
are made in both directions; uplink 1 is unplugged and plugged in again; uplink 2 goes silent and recovers; a path is
drained by command. Gaps are measured where they hurt, at the phones that receive.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sipnemo.lab.live import Screen
from sipnemo.lab.processes import SIPNEMO, Admin, Phones, Program, ProgramError, Server, secret, toml
from sipnemo.lab.report import Call, Event, Move, Run, Stream, move_report, stream_from
from sipnemo.lab.topology import World

SETTLE = 3.0
"Seconds left between the end of one thing and the next, so that every gap has its window."

PATIENCE = 30.0
"Seconds the programs get for what takes them a fraction of one."

GAP_OVER = 30.0
"Milliseconds: the phones list longer silences; shorter ones are the unrest of a busy machine."

HOME = "192.0.2.10"
GATEWAY = "10.7.0.1"

Tables = list[tuple[str, Mapping[str, Any]]]


class Demo:
    """One run, from the first namespace to the last figure."""

    def __init__(
        self, calls: int, rtt_ms: float, world: World, directory: Path, logs: Path, screen: Screen, stack: ExitStack
    ) -> None:
        """`directory` is for what only the programs read; their logs go to `logs`, beside the report."""
        self.calls = calls
        self.rtt_ms = rtt_ms
        self.world = world
        self.directory = directory
        self.logs = logs
        self.screen = screen
        self.stack = stack
        self.programs: list[Program] = []
        self.admin: Admin | None = None
        self.paths: list[Mapping[str, Any]] = []
        self.started_at = time.monotonic()
        self.hangup_at = 0.0
        self.events: list[Event] = []
        self.moves: list[Move] = []
        self.password = secret(directory, "phones", "demo")

    # ------------------------------------------------------------------------------------------------- the story

    def run(self) -> Run:
        """The whole story."""
        self.start_servers()
        self.start_phones()
        self.make_calls()
        self.started_at = time.monotonic()
        self.wait(1.0)
        self.move("uplink 1 is unplugged", "uplink1", lambda: self.world.cut("uplink1", "carrier"))
        self.mend("uplink 1 is plugged in again", "uplink1", path=1)
        self.move("uplink 2 goes silent", "uplink2", lambda: self.world.cut("uplink2", "silent"))
        self.mend("uplink 2 answers again", "uplink2", path=2)
        self.move("sipnemo path 1 off", "uplink1", self.drain)
        self.hang_up()
        return self.record()

    def start_servers(self) -> None:
        """SIP-HS (also the phones' own server), then the gateway, until its paths are ON."""
        count = self.calls
        users = [("[[user]]", self.account(f"{side}{n}")) for side in ("in", "out") for n in range(1, count + 1)]
        gateway = secret(self.directory, "gateway", "demo-gateway")
        hs: Tables = [
            ("[hs]", {"domain": HOME, "listen": ["udp:0.0.0.0:5060"], "store": f"sqlite:{self.directory}/home.db"}),
            ("[[account]]", {"name": "gateway", "password_file": str(gateway)}),
            *users,
        ]
        nms: Tables = [
            (
                "[nms]",
                {
                    "home": f"sip:{HOME}:5060",
                    "account": "gateway",
                    "password_file": str(gateway),
                    "state_dir": str(self.directory / "nms"),
                    "manage_routes": True,
                },
            ),
            ("[iface]", {"address": GATEWAY}),
            ("[[eface]]", {"id": 1, "interface": "wan1", "priority": 1}),
            ("[[eface]]", {"id": 2, "interface": "wan2", "priority": 2}),
        ]
        (self.directory / "nms").mkdir()
        for name, tables in (("hs", hs), ("nms", nms)):
            config = self.directory / f"{name}.toml"
            config.write_text(toml(tables))
            server = Server(self.world.host(name), name, config, self.directory, self.logs)
            self.stack.callback(server.close)
            self.programs.append(server)
            self.until(server.ready, f"sipnemo {name} to be ready", server)
        self.admin = Admin(self.world.host("nms"))
        self.screen.say("SIP-HS and SIP-NMS are up")
        self.until(lambda: all(self.path_is_on(n) for n in (1, 2)), "both paths to be ON", self.programs[-1])

    def start_phones(self) -> None:
        """All accounts of one side in one process, until every one is registered."""
        self.inside = self.phones("mn", "in", ["--proxy", f"sip:{GATEWAY}:5060"])
        self.outside = self.phones("cn", "out", [])
        for side in (self.inside, self.outside):
            self.until(lambda s=side: self.heard(s, "registered"), f"{side.name} to register", side)  # type: ignore[misc]
        self.screen.say(f"{2 * self.calls} phones are registered, half of them behind the gateway")

    def make_calls(self) -> None:
        """Every other call comes from outside; wait until all are answered and heard at both ends."""
        for number in range(1, self.calls + 1):
            if number % 2:
                self.inside.command(f"call in{number} sip:out{number}@{HOME}")
            else:
                self.outside.command(f"call out{number} sip:in{number}@{HOME}")
        for side in (self.inside, self.outside):
            self.until(lambda s=side: self.heard(s, "answered"), "all calls to be answered", side)  # type: ignore[misc]
            self.until(lambda s=side: self.all_hear(s), "media to flow in every call", side)  # type: ignore[misc]
        self.screen.say(f"{self.calls} calls are up, media flows both ways")

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
        self.until(lambda: self.path_is_on(path), f"path {path} to be ON again", self.programs[1])
        self.screen.say(f"path {path} is ON again (after hold-down)")
        self.wait(1.0)

    def hang_up(self) -> None:
        """End all calls in order, and see them end."""
        self.record()  # while they live
        self.hangup_at = time.monotonic()
        self.inside.command("hangup")
        for side in (self.inside, self.outside):
            with contextlib.suppress(TimeoutError):
                self.until(lambda s=side: self.heard(s, "ended"), "all calls to end", None, patience=10.0)  # type: ignore[misc]
        self.screen.say("all calls are hung up")

    # --------------------------------------------------------------------------------------------- what is known

    def record(self) -> Run:
        """All calls and moves as they stand now."""
        inside, outside = (self.streams(side) for side in (self.inside, self.outside))
        end = self.hangup_at or time.monotonic()
        calls = []
        for number in range(1, self.calls + 1):
            mine, theirs = f"in{number}", f"out{number}"
            caller, callee = (mine, theirs) if number % 2 else (theirs, mine)
            facts = self.facts(mine), self.facts(theirs)
            calls.append(
                Call(
                    call_id=facts[0].get("call_id") or facts[1].get("call_id") or f"{caller}-{callee}",
                    caller=caller,
                    callee=callee,
                    answered_at=max(f["answered"] for f in facts) if all("answered" in f for f in facts) else None,
                    ended_at=min((f["ended"] for f in facts if f.get("ended", end) < end), default=None),
                    up=outside.get(theirs, Stream()),
                    down=inside.get(mine, Stream()),
                )
            )
        return Run(self.rtt_ms, tuple(calls), tuple(self.events), tuple(self.moves), self.started_at, end)

    def facts(self, account: str) -> dict[str, Any]:
        """When this account's call was answered and ended, and its Call-ID."""
        found: dict[str, Any] = {}
        for event in self.inside.events + self.outside.events:
            if event.get("account") == account and event.get("event") in ("answered", "ended"):
                found.setdefault(event["event"], event["t"])
                found["call_id"] = event.get("call_id")
        return found

    def streams(self, side: Phones) -> dict[str, Stream]:
        """Every account's media record, asked for now unless the calls are over."""
        if not self.hangup_at:
            known = len(side.events)
            side.command("report")
            with contextlib.suppress(TimeoutError):
                self.until(lambda: self.reported(side, known), "the phones to report", None, patience=5.0)
        return {e["account"]: stream_from(e) for e in side.events if e.get("event") == "stream"}

    def reported(self, side: Phones, known: int) -> bool:
        """Whether every account has reported since event number `known`."""
        fresh = {e.get("account") for e in side.events[known:] if e.get("event") == "stream"}
        return len(fresh) >= self.calls

    def all_hear(self, side: Phones) -> bool:
        """Whether every phone of this side receives media."""
        streams = self.streams(side).values()
        return len(streams) == self.calls and all(stream.received > 5 for stream in streams)

    def heard(self, side: Phones, event: str) -> bool:
        """Whether every account or call of this side has had this event."""
        return side.count(event) >= self.calls

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

    def path_is_on(self, eface_id: int) -> bool:
        """Whether the gateway uses this uplink."""
        paths = [path for path in self.paths if path.get("eface_id") == eface_id]
        return bool(paths) and all(path.get("status") == "ON" for path in paths)

    # ------------------------------------------------------------------------------------------------- mechanics

    def phones(self, host: str, side: str, more: list[str]) -> Phones:
        """One `sipnemo phone` with an account per call."""
        arguments = ["--json", "--account", f"{side}{{n}}", "--count", str(self.calls), "--server", f"sip:{HOME}"]
        arguments += ["--gap-over", str(GAP_OVER)]
        arguments += ["--password-file", str(self.password), *more]
        made = Phones(self.world.host(host), f"phones-{side}", arguments, self.logs)
        self.stack.callback(made.close)
        self.programs.append(made)
        return made

    def account(self, name: str) -> dict[str, str]:
        """A user of the phones' own server."""
        return {"name": name, "password_file": str(self.password)}

    def look(self) -> None:
        """Take in whatever has happened, and show it."""
        for program in self.programs:
            program.check()
            if isinstance(program, Phones):
                program.take()
        if self.admin is not None:
            self.paths = self.admin.rows("paths")
        self.screen.show(self.paths, f"{self.calls} calls")

    def until(
        self, condition: Callable[[], bool], what: str, blame: Program | None, patience: float = PATIENCE
    ) -> None:
        """Wait for something, looking around meanwhile; names who is to blame when it does not come."""
        deadline = time.monotonic() + patience
        while True:
            self.look()
            if condition():
                return
            if time.monotonic() > deadline:
                text = f"waited {patience:g} s in vain for {what}"
                raise blame.complaint(text) if blame else TimeoutError(text)
            time.sleep(0.02)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.look()
            time.sleep(0.1)
