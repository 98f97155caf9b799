"""What every run in namespaces needs: the real programs in their hosts, calls between them, and what they tell.

`story.py` tells the demo on it and `play.py` any scenario. Calls are numbered from 1; call N is between the phone `inN`
behind the gateway and the far end `outN`, in either direction. Gaps are measured where they hurt, at the phones that
receive.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sipnemo.lab import tally
from sipnemo.lab.live import Screen
from sipnemo.lab.processes import Admin, Phones, Program, Server
from sipnemo.lab.report import Event, Move, Run, Stream, stream_from
from sipnemo.lab.setup import GATEWAY, HOME, Tables, phones_password, write_configuration
from sipnemo.lab.tally import Placed, Side
from sipnemo.lab.topology import World

PATIENCE = 30.0
"Seconds the programs get for what takes them a fraction of one."
AT_ONCE = 100
PLACED_PER_SECOND = 25.0
"""All programs of the lab share one machine: hundreds of calls made at once would keep it busy for so long that the
gateway's probes come late. Making calls is not what is measured."""


def had(side: Phones, event: str) -> set[str]:
    """The accounts that have had this event."""
    return {str(e.get("account")) for e in side.events if e.get("event") == event}


class Stage:
    """The programs, running, and the calls between them."""

    def __init__(
        self, calls: int, rtt_ms: float, world: World, directory: Path, logs: Path, screen: Screen, stack: ExitStack
    ) -> None:
        """`directory` is for what only the programs read; their logs go to `logs`, beside the report."""
        self.calls = calls
        "How many calls there may ever be; each has its pair of accounts."
        self.rtt_ms = rtt_ms
        self.measure_every, self.sparse_ms = 1, 20
        "One of so many calls has media every 20 ms; the others seldom, to spare the machine, and are not measured."
        self.world = world
        self.directory = directory
        self.logs = logs
        self.screen = screen
        self.stack = stack
        self.servers: dict[str, Server] = {}
        self.programs: list[Program] = []
        self.admin: Admin | None = None
        self.paths: list[Mapping[str, Any]] = []
        self.placed: dict[int, Placed] = {}
        self.started_at = time.monotonic()
        self.hangup_at = 0.0
        self.events: list[Event] = []
        self.moves: list[Move] = []
        self.password = phones_password(directory)

    # ------------------------------------------------------------------------------------------------- the set

    def start_servers(self, efaces: Sequence[Mapping[str, Any]], overrides: Tables = ()) -> None:
        """SIP-HS (also the phones' own server), then the gateway, until its paths are ON."""
        for name, config in write_configuration(self.directory, self.calls, efaces, overrides).items():
            server = self.servers[name] = Server(self.world.host(name), name, config, self.directory, self.logs)
            self.stack.callback(server.close)
            self.programs.append(server)
            self.until(server.ready, f"sipnemo {name} to be ready", server)
        self.admin = Admin(self.world.host("nms"))
        self.screen.say("SIP-HS and SIP-NMS are up")
        ids = [int(eface["id"]) for eface in efaces]
        what = f"{'both paths' if len(ids) == 2 else 'every path'} to be ON and registered"
        self.until(lambda: all(self.path_is_on(n, registered=True) for n in ids), what, self.servers["nms"])

    def start_phones(self, answer: Sequence[str] = ()) -> None:
        """All accounts of one side in one process, until every one is registered. `answer`: how they answer."""
        self.inside = self.phones("mn", "in", ["--proxy", f"sip:{GATEWAY}:5060", *answer])
        self.outside = self.phones("cn", "out", answer)
        for side in (self.inside, self.outside):
            self.until(lambda s=side: s.count("registered") >= self.calls, f"{side.name} to register", side)  # type: ignore[misc]
        self.screen.say(f"{2 * self.calls} phones are registered, half of them behind the gateway")

    def place(self, number: int, caller: Side) -> None:
        """Make call `number`; nobody waits for the answer."""
        self.placed[number] = Placed(caller)
        if caller == "inside":
            self.inside.command(f"call in{number} sip:out{number}@{HOME}")
        else:
            self.outside.command(f"call out{number} sip:in{number}@{HOME}")

    def place_first(self, callers: Sequence[Side]) -> None:
        """Make the calls that are there before anything happens; many of them one after the other."""
        for number, caller in enumerate(callers, 1):
            self.place(number, caller)
            if len(callers) > AT_ONCE:
                self.wait(1 / PLACED_PER_SECOND)

    def until_heard(self) -> None:
        """Wait until every call made is answered and media flows both ways."""
        for side in (self.inside, self.outside):
            self.until(lambda s=side: self.all_had(s, "answered"), "all calls to be answered", side)  # type: ignore[misc]
            self.until(lambda s=side: self.all_hear(s), "media to flow in every call", side)  # type: ignore[misc]
        self.screen.say(f"{len(self.placed)} calls are up, media flows both ways")

    def hang_up(self) -> None:
        """End all calls in order, and see them end."""
        self.record()  # while they live
        self.hangup_at = time.monotonic()
        self.inside.command("hangup")
        for side in (self.inside, self.outside):
            with contextlib.suppress(TimeoutError):
                self.until(lambda s=side: self.all_over(s), "all calls to end", None, patience=10.0)  # type: ignore[misc]
        self.screen.say("all calls are hung up")

    # --------------------------------------------------------------------------------------------- what is known

    def record(self) -> Run:
        """All calls and moves as they stand now."""
        inside, outside = (self.streams(side) for side in (self.inside, self.outside))
        end = self.hangup_at or time.monotonic()
        calls = tally.calls(self.placed, self.facts(), inside, outside, end, self.measure_every)
        return Run(self.rtt_ms, calls, tuple(self.events), tuple(self.moves), self.started_at, end)

    def facts(self) -> dict[str, dict[str, Any]]:
        """Of each account, when its call was answered and ended, and its Call-ID."""
        return tally.facts(self.inside.events + self.outside.events)

    def streams(self, side: Phones) -> dict[str, Stream]:
        """Every account's media record, asked for now unless the calls are over."""
        if not self.hangup_at:
            known = len(side.events)
            side.command("report")
            with contextlib.suppress(TimeoutError):
                self.until(lambda: self.reported(side, known), "the phones to report", None, patience=5.0)
        return {e["account"]: stream_from(e) for e in side.events if e.get("event") == "stream"}

    def reported(self, side: Phones, known: int) -> bool:
        """Whether every account in a call has reported since event number `known`."""
        fresh = {e.get("account") for e in side.events[known:] if e.get("event") == "stream"}
        return had(side, "answered") <= fresh | had(side, "ended")

    def all_hear(self, side: Phones) -> bool:
        """Whether every phone of this side that is in a call receives media."""
        streams = self.streams(side)
        return all(account in streams and streams[account].received > 5 for account in self.accounts(side))

    def all_had(self, side: Phones, event: str) -> bool:
        """Whether every account of this side that is in a call has had this event."""
        return set(self.accounts(side)) <= had(side, event)

    def all_over(self, side: Phones) -> bool:
        """Whether every call of this side that was answered has ended."""
        return had(side, "answered") <= had(side, "ended")

    def accounts(self, side: Phones) -> Iterable[str]:
        """The accounts of one side that are party to a call made."""
        return (f"{'in' if side is self.inside else 'out'}{number}" for number in self.placed)

    def path_is_on(self, eface_id: int, registered: bool = False) -> bool:
        """Whether the gateway uses this uplink, and the home server knows."""
        paths = [path for path in self.paths if path.get("eface_id") == eface_id]
        on = all(path.get("status") == "ON" and (path.get("registered") or not registered) for path in paths)
        return bool(paths) and on

    # ------------------------------------------------------------------------------------------------- mechanics

    def phones(self, host: str, side: str, more: Sequence[str]) -> Phones:
        """One `sipnemo phone` with an account per call."""
        arguments = ["--json", "--account", f"{side}{{n}}", "--count", str(self.calls), "--server", f"sip:{HOME}"]
        arguments += ["--gap-over", str(tally.GAP_OVER)]
        if self.sparse_ms > 20:
            arguments += ["--packet-every", str(self.sparse_ms), "--full-every", str(self.measure_every)]
        arguments += ["--password-file", str(self.password), *more]
        made = Phones(self.world.host(host), f"phones-{side}", arguments, self.logs)
        self.stack.callback(made.close)
        self.programs.append(made)
        return made

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
        self.wait_until(time.monotonic() + seconds)

    def wait_until(self, instant: float) -> None:
        """Let time pass until then."""
        while (left := instant - time.monotonic()) > 0:
            self.look()
            time.sleep(min(0.1, left))
