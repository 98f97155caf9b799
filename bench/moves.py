"""Many live calls lose their uplink: time until the last answer, and CPU: `python bench/moves.py [--calls 500]`.

The calls are made by SIPp through a gateway with two uplinks; then the address of the first goes. `sipnemo moves`
tells when the far ends have answered their re-INVITEs, /proc what that cost the gateway. No media flows, so every
move ends unverified; that is what the bench expects.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from load import Caller, stop
from place import CALLED, UPLINKS, Gateway, Place, cpu_seconds, until

RESULTS = Path(__file__).with_name("results")
RATE = 250.0
SETTLE = 2.0
GOAL = 100.0


def main() -> None:
    """Measure, print, write results/moves.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--no-media", action="store_true", help="drive no media plane")
    arguments, _ = parser.parse_known_args()
    turns = [turn(arguments.calls, not arguments.no_media) for _ in range(arguments.turns)]
    best = min(turns, key=lambda result: result["cpu_ms"])
    print(
        f"{best['calls']} calls: last answer after {best['last_answer_ms']:.0f} ms (median {best['median_ms']:.0f}), "
        f"{best['cpu_ms']:.0f} CPU-ms of the gateway ({best['cpu_ms'] / best['calls']:.3f} a call, "
        f"{best['kernel_ms']:.0f} of them in the kernel); goal: {GOAL:g} CPU-ms compiled, on an unloaded core"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "moves.json").write_text(json.dumps({"best": best, "turns": turns}, indent=2) + "\n")


def turn(calls: int, media: bool) -> dict[str, Any]:
    """One gateway, its calls, one cut."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Place(Path(name)) as place:
        directory = Path(name)
        gateway = Gateway(place, directory / "servers", uplinks=2, media=media)
        answer = [sys.executable, str(Path(__file__).with_name("far_end.py")), CALLED, "5070"]
        far = place.popen(answer, place.other_core, directory / "far_end.log")
        time.sleep(0.3)
        caller = Caller(place, directory, RATE, calls, hold=calls / RATE + 30)
        try:
            until(lambda: live(gateway) == calls, f"{calls} calls live", 60)
            time.sleep(SETTLE)
            samples = [sample(gateway.pid)]
            place.host.remove_address("lo", f"{UPLINKS[1]}/32")
            while time.monotonic() < samples[0][0] + calls / 100 + 1.0:  # asking would cost more than moves do
                samples.append(sample(gateway.pid))
                time.sleep(0.005)
            until(lambda: gateway.admin.rows("moves", True)[-1]["duration_ms"] is not None, "all calls moved", 30)
            row = gateway.admin.rows("moves", True)[-1]
        finally:
            stop(caller.process)
            stop(far)
            gateway.close()
    answered = row["answered_ms"] or {"median": 0.0, "worst": 0.0}
    if row["calls"] != calls or row["ended"].get("failed"):
        raise SystemExit(f"bench: not all calls moved: {json.dumps({**row, 'each': None})}")
    end = next((s for s in samples if s[0] >= row["at"] + answered["worst"] / 1000), samples[-1])
    user, kernel = ((after - before) * 1000 for after, before in zip(end[1:], samples[0][1:], strict=True))
    return {
        "calls": calls,
        "last_answer_ms": answered["worst"],
        "median_ms": answered["median"],
        "cpu_ms": user + kernel,
        "kernel_ms": kernel,
        "invites": row["invites"],
        "ended": row["ended"],
    }


def live(gateway: Gateway) -> int:
    """Calls that are answered and not ended."""
    status = gateway.admin.get("/api/status")
    return int(status["live_sessions"]) if isinstance(status, dict) else 0


def sample(pid: int) -> tuple[float, float, float]:
    """Now, and the CPU seconds spent so far in user and in kernel mode."""
    return (time.monotonic(), *cpu_seconds([pid]))


if __name__ == "__main__":
    main()
