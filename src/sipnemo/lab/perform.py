"""A scenario from beginning to end: the world built, the play played, the report written and the verdict told."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from sipnemo import __version__
from sipnemo.lab.charts import Ladder, Track, topology
from sipnemo.lab.chronicle import Chronicle
from sipnemo.lab.live import Screen
from sipnemo.lab.play import Play
from sipnemo.lab.recorded import moved_call, path_numbers, tracks
from sipnemo.lab.report import Run, move_report, run_report, write_json
from sipnemo.lab.report_html import Cover, page, verdicts
from sipnemo.lab.scenario import Scenario
from sipnemo.lab.simulated import Builders, Simulation
from sipnemo.lab.topology import Topology, World, gateway_with, ipv4_only
from sipnemo.lab.verdict import Verdict, judge


class Played(NamedTuple):
    """A scenario that was played, in whatever time."""

    run: Run
    chronicle: Chronicle
    tracks: list[Track]
    ladder: Ladder | None

    seed: int | None = None
    "Of a simulated run."


def perform(scenario: Scenario, output: Path, out: TextIO) -> dict[str, Any]:
    """Play it with real programs; report.json and report.html into `output`, the story to `out`; the report."""
    output.mkdir(parents=True, exist_ok=True)
    plan = plan_of(scenario)
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="sipnemo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        screen = stack.enter_context(Screen(out))
        screen.say(f"{scenario.title}: {scenario.shows}")
        ends = stack.enter_context(ExitStack())
        world = stack.enter_context(World(plan, record=directory))
        play = Play(scenario, world, directory, output, screen, ends)
        run = play.run()
        for phones in (play.inside, play.outside):
            lines = "".join(json.dumps(event) + "\n" for event in phones.events)
            (output / f"{phones.name}.jsonl").write_text(lines)
        chart = moved_call(run, world.messages(), plan, path_numbers(world))
        return conclude(Played(run, play.chronicle, tracks(world), chart), output, screen)


def simulate(scenario: Scenario, builders: Builders, seed: int, output: Path, out: TextIO) -> dict[str, Any]:
    """Play it in virtual time, in this process; otherwise like `perform`."""
    simulation = Simulation(scenario, builders, plan_of(scenario), seed)
    with Screen(out, lambda: simulation.world.now) as screen:
        screen.say(f"{scenario.title}: {scenario.shows} (simulated, seed {seed})")
        return conclude(played(simulation, simulation.run(screen)), output, screen)


def survey(scenario: Scenario, builders: Builders, seeds: range, output: Path, out: TextIO) -> dict[str, Any]:
    """Play it with many seeds; the report tells which were not as expected, and `output` shows the first of them."""
    failed: dict[int, list[str]] = {}
    with Screen(out) as screen, Screen(io.StringIO()) as nowhere:
        for seed in seeds:
            simulation = Simulation(scenario, builders, plan_of(scenario), seed)
            run = simulation.run(nowhere)
            wrong = [verdict for verdict in judge(simulation.chronicle, run) if not verdict.met]
            if not wrong and seed != seeds[-1]:
                continue
            if not failed:
                conclude(played(simulation, run), output, nowhere)
            if wrong:
                failed[seed] = [f"{verdict.what}: {verdict.found}, expected {verdict.expected}" for verdict in wrong]
                screen.say(f"seed {seed}: NOT AS EXPECTED: {'; '.join(failed[seed])}")
                screen.say(f"the same again: {again(scenario, seed)}")
        screen.say(f"{scenario.title}: {len(seeds)} seeds, {len(failed)} not as expected; see {output}/report.html")
    told = [{"seed": seed, "found": found, "again": again(scenario, seed)} for seed, found in failed.items()]
    return {"scenario": scenario.title, "seeds": len(seeds), "as_expected": not failed, "not_as_expected": told}


def again(scenario: Scenario, seed: int) -> str:
    """The command that plays just this once more."""
    return f"sipnemo lab {scenario.name} --simulated --seed {seed}"


def plan_of(scenario: Scenario) -> Topology:
    """What stands where."""
    return ipv4_only(gateway_with({uplink.id: uplink.quality for uplink in scenario.uplinks}))


def played(simulation: Simulation, run: Run) -> Played:
    """A simulated run, to be judged and drawn."""
    chart = moved_call(run, simulation.messages(), simulation.plan, simulation.scenario.names)
    return Played(run, simulation.chronicle, simulation.tracks(), chart, simulation.seed)


def conclude(played: Played, output: Path, screen: Screen) -> dict[str, Any]:
    """Judge, write, and tell."""
    output.mkdir(parents=True, exist_ok=True)
    run, scenario = played.run, played.chronicle.scenario
    judged = judge(played.chronicle, run)
    report = lab_report(played, judged)
    write_json(report, output / "report.json")
    (output / "report.html").write_text(page(run, played.tracks, played.ladder, __version__, cover(played, judged)))
    moves = [move_report(run, move) for move in run.moves]
    for count in range(1, len(moves) + 1):
        screen.gaps(moves[:count])
    for verdict in judged:
        if not verdict.met:
            mark = "NOT AS EXPECTED" if verdict.binding else "not on this machine"
            screen.say(f"{mark}: {verdict.what}: {verdict.found}, expected {verdict.expected}")
    met = "all" if all(one.met for one in judged) else f"{sum(one.met for one in judged)}"
    screen.say(
        f"{report['calls']} calls, {report['dropped']} dropped; {met} of {len(judged)} expectations met; "
        f"see {output}/report.html"
    )
    if not report["as_expected"] and played.seed is not None:
        screen.say(f"the same again: {again(scenario, played.seed)}")
    return report


def lab_report(played: Played, judged: list[Verdict]) -> dict[str, Any]:
    """The whole of report.json: the demo's keys and a few more."""
    return run_report(played.run) | {
        "scenario": played.chronicle.scenario.title,
        "seed": played.seed,
        "as_expected": all(verdict.met or not verdict.binding for verdict in judged),
        "expectations": [verdict._asdict() for verdict in judged],
    }


def cover(played: Played, judged: list[Verdict]) -> Cover:
    """What the page says of this scenario."""
    scenario = played.chronicle.scenario
    lines = []
    for uplink in scenario.uplinks:
        quality = uplink.quality
        words = f"{quality.delay:g} ms" + (f" ± {quality.jitter:g}" if quality.jitter else "")
        words += f", {quality.loss:g} % lost" if quality.loss else ""
        words += f", {quality.rate:g} Mbit/s" if quality.rate else ""
        lines.append((f"uplink {uplink.id}" + (f", {uplink.name}" if uplink.name else ""), words))
    shows = scenario.shows + ("" if played.seed is None else f" Simulated, seed {played.seed}.")
    return Cover(scenario.title, shows, topology(len(played.run.calls), lines), verdicts(judged))
