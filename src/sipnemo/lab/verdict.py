"""What must come of a scenario, held against what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sipnemo.lab.chronicle import Chronicle
from sipnemo.lab.report import HEARD_AFTER, PACKET_INTERVAL_MS, Call, Event, Move, Run, Stream, run_report
from sipnemo.lab.scenario import Step
from sipnemo.lab.spread import percentile

LIMITS = ("gap_up_ms", "gap_down_ms", "lost_up", "lost_down")
P99 = {
    "gap_up_p99_ms": "gap_up_ms",
    "gap_down_p99_ms": "gap_down_ms",
    "lost_up_p99": "lost_up",
    "lost_down_p99": "lost_down",
}
"Percentiles are told in real time, and demanded in virtual time only: a busy machine is slower than the gateway."


class Verdict(NamedTuple):
    """One expectation."""

    what: str
    "For people: 'dropped calls'."

    expected: str
    found: str
    met: bool

    binding: bool = True
    "Whether the scenario fails if it is not met."


def judge(chronicle: Chronicle, run: Run) -> list[Verdict]:
    """Every expectation of the scenario, in the file's order."""
    found = [
        *of_the_whole(chronicle, run),
        *(one for step in chronicle.scenario.steps for one in of_a_step(chronicle, run, step)),
    ]
    found += [Verdict("command", "done", told, False) for told in chronicle.failed_commands]
    if chronicle.left:
        found.append(Verdict("left in the gateway when all is over", "nothing", chronicle.left, False))
    return found


def of_the_whole(chronicle: Chronicle, run: Run) -> Iterable[Verdict]:
    """What is expected of the run as a whole."""
    expect = chronicle.scenario.expect
    refused = [call for call in run.calls if call.answered_at is None]
    dropped = int(run_report(run)["dropped"]) - len(refused)
    yield at_most("dropped calls", expect.get("dropped", 0), dropped)
    yield at_most("calls never answered", expect.get("unanswered", 0), len(refused))
    if "unverified" in expect:
        ended = [one["ended"] for wave in chronicle.waves.values() for one in wave.get("each", ())]
        yield at_most("moves not verified", expect["unverified"], sum(one in ("unverified", "failed") for one in ended))
    if "moves_per_call" in expect:
        most = max([0, *(int(row.get("moves") or 0) for row in chronicle.sessions.values())])
        yield at_most("moves of one call", expect["moves_per_call"], most)
    if "on" in expect:
        on = sorted(chronicle.on)
        wanted = sorted(expect["on"])
        yield Verdict("uplinks ON at the end", listed(wanted), listed(on), on == wanted)
    yield from limits("at any time", expect, run.calls, run.started_at, run.hangup_at, chronicle.virtual)


def of_a_step(chronicle: Chronicle, run: Run, step: Step) -> Iterable[Verdict]:
    """What is expected of one event."""
    events = chronicle.done.get(step.number)
    if not events:
        return
    name = f"{step.at:g} s, {events[0].text}"
    moves = [move for move in run.moves if move.event in events]
    if "moved" in step.expect:
        moved = len({call_id for move in moves for call_id in move.call_ids})
        yield Verdict(f"{name}: calls moved", str(step.expect["moved"]), str(moved), moved == step.expect["moved"])
    if "cause" in step.expect:
        cause, causes = step.expect["cause"], sorted({move.cause for move in moves})
        yield Verdict(f"{name}: cause", cause, ", ".join(causes) or "no move", causes == [cause])
    if "detected_ms" in step.expect:
        spans = [(move.detected_at - move.event.at) * 1e3 for move in moves if move.detected_at is not None]
        yield at_most(f"{name}: detected_ms", step.expect["detected_ms"], round(max([0.0, *spans]), 1))
    yield from limits(name, step.expect, run.calls, *window(run, events, moves), chronicle.virtual)


def window(run: Run, events: list[Event], moves: list[Move]) -> tuple[float, float]:
    """From the first of the events until the next that is none of them, or until the moves they made are over."""
    later = [event.at for event in run.events if event.closes and event not in events and event.at > events[0].at]
    over = [move.done_at + HEARD_AFTER for move in moves if move.done_at is not None]
    return events[0].at, min(max([min(later, default=run.hangup_at), *over]), run.hangup_at)


def limits(
    name: str, expect: Mapping[str, Any], calls: Iterable[Call], start: float, end: float, binding: bool
) -> Iterable[Verdict]:
    """The worst of all calls, whether or not they moved, in a window; or what 99 of 100 do not exceed."""
    wanted = [key for key in (*LIMITS, *P99) if key in expect]
    if not wanted:
        return
    found: dict[str, list[float]] = {key: [] for key in LIMITS}
    for call in calls:
        if call.measured:
            for way, stream in (("up", call.up), ("down", call.down)):
                gap, lost = suffered(stream, start, end)
                found[f"gap_{way}_ms"].append(gap)
                found[f"lost_{way}"].append(lost)
    for key in wanted:
        if key in P99:
            value = percentile(sorted(found[P99[key]]), 99)
            yield at_most(f"{name}: {key}", expect[key], round(value, 1))._replace(binding=binding)
        else:
            yield at_most(f"{name}: {key}", expect[key], round(max([0.0, *found[key]]), 1))


def suffered(stream: Stream, start: float, end: float) -> tuple[float, int]:
    """Longest silence (ms), less what the sender itself was late, and packets lost of a stream in a window."""
    inside = [gap for gap in stream.gaps if start <= gap.at < end]
    return max([PACKET_INTERVAL_MS, *(gap.gap_ms - gap.stalled_ms for gap in inside)]), sum(gap.lost for gap in inside)


def at_most(what: str, most: float, found: float) -> Verdict:
    """An upper bound, itself included."""
    return Verdict(what, f"{most:g}" if not most else f"at most {most:g}", f"{found:g}", found <= most)


def listed(numbers: list[int]) -> str:
    """Numbers, or none."""
    return ", ".join(map(str, numbers)) or "none"
