"""How a figure is spread over many calls: median, 99th percentile and worst, and how many calls had how much."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

MANY = 50
"From so many calls on a histogram says more than a list of them."
BINS = 24
BLOCKS = "▁▂▃▄▅▆▇█"
SHOWN = {"gap_up_ms": "gap up, ms", "gap_down_ms": "gap down, ms"}


class Figures(NamedTuple):
    """Over the moved calls; the 99th percentile by nearest rank, so that it was some call's own."""

    median: float
    p99: float
    worst: float


def figures(values: Iterable[float]) -> Figures:
    """Of these values; 0 when there are none."""
    known = sorted(values)
    if not known:
        return Figures(0.0, 0.0, 0.0)
    return Figures(round(statistics.median(known), 1), round(percentile(known, 99), 1), round(known[-1], 1))


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest rank: the least value that so many percent of all do not exceed; 0 when there are none."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


def histogram(values: Iterable[float]) -> dict[str, Any]:
    """Calls per bin: `calls[n]` had at least `start + n * step`, and less than the next."""
    known = sorted(values)
    if not known:
        return {"start": 0, "step": 1, "calls": []}
    step = max(1.0, nice_step(known[-1] - known[0], BINS - 1))
    start = math.floor(known[0] / step) * step
    calls = [0] * (int((known[-1] - start) / step) + 1)
    for value in known:
        calls[int((value - start) / step)] += 1
    return {"start": start, "step": step, "calls": calls}


def line(name: str, found: Mapping[str, Any]) -> str:
    """A histogram in one line of text."""
    calls, start, step = found["calls"], found["start"], found["step"]
    most = max([1, *calls])
    bars = "".join(BLOCKS[math.ceil(one / most * len(BLOCKS)) - 1] if one else "·" for one in calls)
    return f"{name} {start:g} {bars} {start + step * len(calls):g} (a sign is {step:g})"


def lines(move: Mapping[str, Any]) -> list[str]:
    """Of one move of report.json, for people; nothing when it has moved but a few calls."""
    if len(move["per_call"]) < MANY:
        return []
    return [line(words, move["histogram"][name]) for name, words in SHOWN.items()]


def nice_step(span: float, most: int = 12) -> float:
    """A round distance between ticks so that there are at most so many."""
    step = 0.1
    for factor in (2.0, 2.5, 2.0) * 6:
        if span / step <= most:
            return step
        step *= factor
    return step
