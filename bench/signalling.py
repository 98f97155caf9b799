"""Calls per second, CPU per call and memory per call, beside other servers: `python bench/signalling.py [--help]`.

One call is INVITE, 100, 180, 200, ACK, BYE, 200 with SDP and without media. Each server has one core, SIPp the other,
all in one network namespace over loopback. The servers take turns, so that a busy machine is busy for all of them;
of a server's turns the cheapest counts. Servers that are not installed are left out, and the table says so.

CPU per call is measured twice: at a gentle rate, where each wake-up of a server brings it few messages and what it does
by the clock weighs most, and at the highest rate it sustains, which is what its capacity follows from.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from load import Caller, Calls, called, stop
from peers import Peer, Running, peers, version
from place import Place, cpu_seconds, family, memory_kib

RESULTS = Path(__file__).with_name("results")
BAD = 0.001
"A rate passes below this share of calls that failed or needed a retransmission."
WARM_UP = 30
GOAL_CPU, GOAL_MEMORY = 0.21, 12.0


@dataclass
class Measured:
    """What is known of one server."""

    key: str
    what: str
    version: str = ""
    skipped: str = ""
    cpu_ms: float = 0.0
    "CPU milliseconds per call, user and kernel, of its cheapest turn."
    kernel_ms: float = 0.0
    turns: list[float] = field(default_factory=list)
    rate: int = 0
    "Highest rate that passed."
    busy_ms: float = 0.0
    "CPU milliseconds per call at that rate."
    tried: dict[int, str] = field(default_factory=dict)
    kib_per_call: float = 0.0
    live_calls: int = 0


class Bench:
    """One run of everything."""

    def __init__(self, place: Place, directory: Path, seconds: float) -> None:
        self.place = place
        self.directory = directory
        self.seconds = seconds
        self._runs = 0

    @contextmanager
    def started(self, peer: Peer) -> Iterator[tuple[Running, Path]]:
        """The server, fresh, and the called side; the server has served its first calls."""
        self._runs += 1
        directory = self.directory / f"{self._runs}-{peer.key}"
        directory.mkdir()
        server = peer.start(self.place, directory)
        far = called(self.place, directory)
        try:
            time.sleep(0.3)
            warm = Caller(self.place, directory, 50, WARM_UP, target=peer.target).wait()
            if warm.done < WARM_UP / 2:
                raise SystemExit(f"bench: no calls through {peer.what}: {warm}; see its log:\n{_logs(directory)}")
            yield server, directory
        finally:
            server.close()
            stop(far)

    def calls(self, peer: Peer, rate: float) -> tuple[Calls, float, float]:
        """A run at this rate: how it went, and the CPU milliseconds per call, in all and of them in the kernel."""
        with self.started(peer) as (server, directory):
            pids = family(server.pid)
            user, system = cpu_seconds(pids)
            calls = Caller(self.place, directory, rate, int(rate * self.seconds), target=peer.target).wait()
            user, system = (after - before for after, before in zip(cpu_seconds(pids), (user, system), strict=True))
        done = max(1, calls.done)
        return calls, (user + system) * 1000 / done, system * 1000 / done

    def cpu(self, peer: Peer, measured: Measured) -> None:
        """A turn at a gentle rate."""
        calls, cpu, kernel = self.calls(peer, peer.gentle)
        if calls.done < calls.asked * 0.9:
            return
        measured.turns.append(round(cpu, 4))
        if not measured.cpu_ms or cpu < measured.cpu_ms:
            measured.cpu_ms, measured.kernel_ms = round(cpu, 4), round(kernel, 4)

    def rate(self, peer: Peer, measured: Measured, tries: int) -> None:
        """Search the highest rate that passes, beginning near where its CPU per call says it is."""
        if not measured.cpu_ms:
            return
        rate, passed, failed = 700 / measured.cpu_ms, 0.0, 0.0
        for _ in range(tries):
            calls, cpu, _kernel = self.calls(peer, rate)
            good = calls.bad < BAD and calls.done / (calls.seconds - 0.3) > 0.85 * rate
            measured.tried[int(rate)] = f"{'ok' if good else 'failed'}: {100 * calls.bad:.2f} % of {calls.asked} bad"
            if good:
                passed, measured.busy_ms = rate, round(cpu, 4)  # each rate tried is above those that have passed
            else:
                failed = rate
            rate = (passed + failed) / 2 if passed and failed else passed * 1.2 if passed else rate * 0.75
        measured.rate = int(passed)

    def memory(self, peer: Peer, measured: Measured, calls: int) -> None:
        """Memory while so many calls are live, their transactions still there, less that before."""
        rate = peer.gentle
        hold = calls / rate + 4.0
        with self.started(peer) as (server, directory):
            pids = family(server.pid)
            before = memory_kib(pids)
            caller = Caller(self.place, directory, rate, calls, hold=hold, target=peer.target)
            time.sleep(calls / rate + 2.0)
            measured.live_calls = calls
            measured.kib_per_call = round((memory_kib(pids) - before) / calls, 2)
            stop(caller.process)


def _logs(directory: Path) -> str:
    files = sorted(directory.rglob("*.log"))
    return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)


def table(rows: list[Measured]) -> str:
    """For people."""
    lines = [f"{'':<52}{'CPU ms/call':>12}{'of it kernel':>14}{'calls/s':>9}{'CPU ms/call so':>16}{'kB/live call':>14}"]
    for row in rows:
        if row.skipped:
            lines.append(f"{row.what:<52}left out: {row.skipped}")
            continue
        kb = f"{row.kib_per_call * 1.024:.1f}" if row.live_calls else "-"
        busy = f"{row.busy_ms:.3f}" if row.busy_ms else "-"
        lines.append(f"{row.what:<52}{row.cpu_ms:>12.3f}{row.kernel_ms:>14.3f}{row.rate or '-':>9}{busy:>16}{kb:>14}")
    known = {row.key: row for row in rows if row.cpu_ms}
    ours = known.get("sipnemo-signalling")
    for other in ("kamailio-gateway", "sippy"):
        if ours is not None and other in known:
            ratio = f"{known[other].cpu_ms / ours.cpu_ms:.2f}"
            if ours.busy_ms:
                ratio += f", at the highest rate {known[other].busy_ms / ours.busy_ms:.2f}"
            lines.append(f"{known[other].what}: {ratio} times sipnemo's CPU per call")
    if ours is not None:
        lines.append(f"goals: {GOAL_CPU} CPU ms/call interpreted on an unloaded core, {GOAL_MEMORY:g} kB/live call")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write results/signalling.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="keys of servers: " + " ".join(peer.key for peer in peers()))
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run")
    parser.add_argument("--turns", type=int, default=2, help="of each server, for CPU per call")
    parser.add_argument("--tries", type=int, default=3, help="rates tried of each server; 0: none")
    parser.add_argument("--live", type=int, default=1500, help="calls live at a time, for memory; 0: not measured")
    arguments, _ = parser.parse_known_args()
    rows = [Measured(peer.key, peer.what) for peer in peers()]
    chosen: list[tuple[Peer, Measured]] = []
    for peer, row in zip(peers(), rows, strict=True):
        if arguments.only and peer.key not in arguments.only:
            row.skipped = "not asked for"
        elif not (skipped := peer.missing()):
            row.version = version(peer)
            chosen.append((peer, row))
        else:
            row.skipped = skipped
    with tempfile.TemporaryDirectory(prefix="bench-") as directory, Place(Path(directory)) as place:
        bench = Bench(place, Path(directory), arguments.seconds)
        for _turn in range(arguments.turns):
            for peer, row in chosen:
                bench.cpu(peer, row)
        for peer, row in chosen:
            bench.rate(peer, row, arguments.tries)
            if arguments.live:
                bench.memory(peer, row, int(min(arguments.live, peer.gentle * 5)))
    print(table(rows))
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / "signalling.json"
    machine = {"python": platform.python_version(), "kernel": platform.release(), "machine": platform.machine()}
    file.write_text(json.dumps({"machine": machine, "servers": [asdict(row) for row in rows]}, indent=2) + "\n")
    print(f"written: {file}")


if __name__ == "__main__":
    main()
