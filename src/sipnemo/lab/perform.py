"""A scenario from beginning to end: the world built, the play played, the report written and the verdict told."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from sipnemo import __version__
from sipnemo.lab.charts import topology
from sipnemo.lab.demo import moved_call, tracks
from sipnemo.lab.live import Screen
from sipnemo.lab.play import Play
from sipnemo.lab.report import Run, move_report, run_report, write_json
from sipnemo.lab.report_html import Cover, page, verdicts
from sipnemo.lab.scenario import Scenario
from sipnemo.lab.topology import World, gateway_with, ipv4_only
from sipnemo.lab.verdict import Verdict, judge


def perform(scenario: Scenario, output: Path, out: TextIO) -> dict[str, Any]:
    """Play it, write report.json and report.html into `output`, tell the story to `out`; returns the report."""
    output.mkdir(parents=True, exist_ok=True)
    plan = ipv4_only(gateway_with({uplink.id: uplink.quality for uplink in scenario.uplinks}))
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
        judged = judge(play, run)
        report = lab_report(scenario, run, judged)
        write_json(report, output / "report.json")
        html = page(run, tracks(world), moved_call(run, world, plan), __version__, cover(scenario, run, judged))
        (output / "report.html").write_text(html)
        if run.moves:
            screen.gaps([move_report(run, move) for move in run.moves])
        for verdict in judged:
            if not verdict.met:
                screen.say(f"NOT AS EXPECTED: {verdict.what}: {verdict.found}, expected {verdict.expected}")
        met = "all" if report["as_expected"] else f"{sum(one.met for one in judged)}"
        screen.say(
            f"{report['calls']} calls, {report['dropped']} dropped; {met} of {len(judged)} expectations met; "
            f"see {output}/report.html"
        )
    return report


def lab_report(scenario: Scenario, run: Run, judged: list[Verdict]) -> dict[str, Any]:
    """The whole of report.json: the demo's keys and a few more."""
    return run_report(run) | {
        "scenario": scenario.title,
        "as_expected": all(verdict.met for verdict in judged),
        "expectations": [verdict._asdict() for verdict in judged],
    }


def cover(scenario: Scenario, run: Run, judged: list[Verdict]) -> Cover:
    """What the page says of this scenario."""
    lines = []
    for uplink in scenario.uplinks:
        quality = uplink.quality
        words = f"{quality.delay:g} ms" + (f" ± {quality.jitter:g}" if quality.jitter else "")
        words += f", {quality.loss:g} % lost" if quality.loss else ""
        words += f", {quality.rate:g} Mbit/s" if quality.rate else ""
        lines.append((f"uplink {uplink.id}" + (f", {uplink.name}" if uplink.name else ""), words))
    return Cover(scenario.title, scenario.shows, topology(len(run.calls), lines), verdicts(judged))
