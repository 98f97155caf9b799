"""Calls made by SIPp: a called side that stays, and callers at a rate."""

from __future__ import annotations

import csv
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from place import CALLED, CALLER, INSIDE, Place

SCENARIOS = Path(__file__).with_name("sipp")
PLENTY = ["-nostdin", "-buff_size", "4194304", "-timer_resol", "5", "-l", "1000000"]


class Calls(NamedTuple):
    """How a run of calls went."""

    asked: int
    done: int
    failed: int
    repeated: int
    seconds: float

    @property
    def bad(self) -> float:
        """Share of calls that failed, were not finished, or needed a retransmission."""
        return (self.asked - self.done + self.repeated) / self.asked


def called(place: Place, directory: Path) -> subprocess.Popen[bytes]:
    """Start the called side."""
    argv = ["sipp", "-sf", str(SCENARIOS / "called.xml"), "-i", CALLED, "-p", "5070", *PLENTY, INSIDE]
    return place.popen(argv, place.other_core, directory / "called.log", cwd=directory)


class Caller:
    """`calls` calls at `rate` per second, each held for `hold` seconds."""

    def __init__(
        self, place: Place, directory: Path, rate: float, calls: int, *, hold: float = 0.0, target: str = "[next_url]"
    ) -> None:
        self.calls = calls
        self.statistics = directory / "statistics.csv"
        self.statistics.unlink(missing_ok=True)
        scenario = directory / "caller.xml"
        pause = f'<pause milliseconds="{int(hold * 1000)}"/>' if hold else ""
        text = (SCENARIOS / "caller.xml").read_text().replace("<!--HOLD-->", pause)
        scenario.write_text(text.replace("[next_url]", target))
        argv = ["sipp", "-sf", str(scenario), "-i", CALLER, "-p", "5062", "-key", "called", f"{CALLED}:5070", *PLENTY]
        argv += ["-r", f"{rate:.0f}", "-m", str(calls), "-recv_timeout", "10000", "-trace_stat", "-fd", "1"]
        argv += ["-stf", str(self.statistics), "-timeout", f"{calls / rate + hold + 15:.0f}", "-timeout_error"]
        self.began = time.monotonic()
        self.process = place.popen([*argv, f"{INSIDE}:5060"], place.other_core, directory / "caller.log", cwd=directory)

    def wait(self) -> Calls:
        """Wait until all calls have ended."""
        self.process.wait()
        seconds = time.monotonic() - self.began
        rows = list(csv.DictReader(self.statistics.open(), delimiter=";")) if self.statistics.exists() else []
        if not rows:
            return Calls(self.calls, 0, self.calls, 0, seconds)
        last = rows[-1]
        done, failed = int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"])
        return Calls(self.calls, done, failed, int(last["Retransmissions(C)"]), seconds)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a program of ours."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
