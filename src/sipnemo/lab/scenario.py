"""A scenario as data: uplinks, calls, what happens to them when, and what must come of it. Read from a file by the app.

    Scenario(title="Tunnel", …, steps=(Step(3.0, "silent", uplink=1), Step(9.0, "restore", uplink=1)))

`play.py` runs one in real time, `simulated.py` in virtual time, `verdict.py` judges the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sipnemo.lab.line import Direction, Quality
from sipnemo.lab.tally import Side
from sipnemo.lab.topology import How

CUTS: Mapping[str, How] = {"carrier-down": "carrier", "address-gone": "address", "silent": "silent"}
"What breaks an uplink, in a file's words and in ours."

AFTER = 5.0
"Seconds a scenario goes on after its last event, unless it says."


@dataclass(frozen=True, slots=True)
class Uplink:
    """One uplink of the gateway and the line behind it."""

    id: int
    quality: Quality
    name: str = ""
    "What it stands for, for people: LTE."

    eface: Mapping[str, Any] = field(default_factory=dict)
    "Further keys of its [[eface]]: priority, capacity."


@dataclass(frozen=True, slots=True)
class Step:
    """One event of the time line."""

    at: float
    "Seconds from when the first calls were up."

    do: str
    """To an uplink: carrier-down, address-gone, silent, restore, change, renumber, flap. To a server: stop, kill,
    start, restart. Else: command, call, hang-up."""

    uplink: int = 0
    way: Direction | None = None
    "Of silent and change: None for both."

    change: Mapping[str, float] = field(default_factory=dict)
    "New delay, jitter, loss, rate, in the words of `Quality`."

    times: int = 1
    period: float = 0.0
    how: str = "carrier-down"
    "Of flap: how often, seconds from one cut to the next, what is done."

    server: str = ""
    command: str = ""
    calls: int = 0
    caller: Side = "inside"

    expect: Mapping[str, Any] = field(default_factory=dict)
    "moved, cause, detected_ms, gap_up_ms, gap_down_ms, lost_up, lost_down."

    number: int = 0
    "Which event of the file it is or belongs to, from 1."

    minor: bool = False
    "It belongs to an event that was told already."

    def text(self, names: Mapping[int, str]) -> str:
        """For people; `names` are the uplinks' names."""
        line = f"uplink {self.uplink}" + (f" ({names[self.uplink]})" if names.get(self.uplink) else "")
        match self.do:
            case "carrier-down":
                return f"{line} is unplugged"
            case "address-gone":
                return f"{line} loses its address"
            case "silent":
                return f"{line} goes silent" + (f", {self.way} only" if self.way else "")
            case "restore":
                return f"{line} is restored"
            case "change":
                told = ", ".join(f"{name} {value:g}{UNITS[name]}" for name, value in self.change.items())
                return f"{line}: {told}" + (f", {self.way} only" if self.way else "")
            case "renumber":
                return f"{line} gets another address"
            case "flap":
                return f"{line} flaps {self.times} times ({self.how}, every {self.period:g} s)"
            case "command":
                return f"sipnemo {self.command}"
            case "call":
                return f"{self.calls} more calls from {self.caller}"
            case "hang-up":
                return f"{self.calls} calls are hung up"
        return f"{self.server}: {self.do}"


UNITS = {"delay": " ms", "jitter": " ms", "loss": " %", "rate": " Mbit/s"}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole scenario."""

    title: str
    shows: str
    uplinks: tuple[Uplink, ...]
    from_inside: int
    from_outside: int
    "Calls that are up before the time line begins."

    steps: tuple[Step, ...]
    lasts: float
    "Seconds from when the first calls were up until all are hung up."

    ring: float = 0.0
    "Seconds that callees let it ring."

    measure_every: int = 1
    "One of so many calls is measured: its media come every 20 ms."

    sparse_ms: int = 20
    "Milliseconds between packets of the others, in real time."

    gateway: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    'Further tables of the gateway\'s configuration, as written: ("[probe]", {…}).'

    expect: Mapping[str, Any] = field(default_factory=dict)
    "dropped, unanswered, unverified, moves_per_call, on, gap_up_ms, gap_down_ms, lost_up, lost_down."

    quick: bool = False
    "It is one of the few that run with every test."

    name: str = ""
    "By which `sipnemo lab` finds it: a file, or one that is shipped."

    @property
    def calls(self) -> int:
        """Every call there will ever be."""
        return self.from_inside + self.from_outside + sum(step.calls for step in self.steps if step.do == "call")

    @property
    def names(self) -> dict[int, str]:
        """The uplinks' names."""
        return {uplink.id: uplink.name for uplink in self.uplinks}

    @property
    def efaces(self) -> list[dict[str, Any]]:
        """The gateway's [[eface]] tables."""
        return [{"id": u.id, "interface": f"wan{u.id}", "families": ["ipv4"], **u.eface} for u in self.uplinks]

    @property
    def rtt_ms(self) -> float:
        """The shortest round trip of any uplink at first."""
        return min(2 * uplink.quality.delay for uplink in self.uplinks)

    def uplink(self, number: int) -> Uplink:
        """One uplink."""
        return next(uplink for uplink in self.uplinks if uplink.id == number)

    def timeline(self) -> list[Step]:
        """The steps in order of time, flaps as the cuts and restores they consist of."""
        return sorted((one for step in self.steps for one in unfolded(step)), key=lambda step: step.at)


def unfolded(step: Step) -> list[Step]:
    """A step as single deeds; of a flap, the first half of each period is spent down."""
    if step.do != "flap":
        return [step]
    deeds = [step]
    for turn in range(step.times):
        down = step.at + turn * step.period
        deeds.append(replace(step, at=down, do=step.how, minor=True))
        deeds.append(replace(step, at=down + step.period / 2, do="restore", minor=True))
    return deeds
