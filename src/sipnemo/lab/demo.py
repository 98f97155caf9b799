"""`sipnemo demo`: calls that change uplink on this machine alone, without root, and a report of what it cost.

The world is built in `topology.py`, the story told in `story.py`, the figures made in `report.py`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from sipnemo import __version__
from sipnemo.lab.line import Quality
from sipnemo.lab.live import Screen
from sipnemo.lab.namespace import NamespacesForbiddenError, SandboxError
from sipnemo.lab.processes import ProgramError
from sipnemo.lab.recorded import moved_call, path_numbers, tracks
from sipnemo.lab.report import Run, run_report, write_json
from sipnemo.lab.report_html import page
from sipnemo.lab.story import Demo
from sipnemo.lab.topology import World, ipv4_only, one_gateway

OK, DROPPED, FAILED = 0, 1, 2
MOST_CALLS = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sipnemo demo` takes."""
    parser.add_argument("--calls", metavar="N", type=whole, default=20, help="calls at a time (default: 20)")
    parser.add_argument(
        "--rtt", metavar="MS", type=span, default=50.0, help="round trip of each uplink (default: 50 ms)"
    )
    parser.add_argument("--json", action="store_true", help="print report.json on stdout, the story on stderr")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("demo-report"), help="where to (default: demo-report)"
    )


def whole(text: str) -> int:
    """A number of calls."""
    if not text.isdigit() or not 1 <= int(text) <= MOST_CALLS:
        raise argparse.ArgumentTypeError(f"write a number from 1 to {MOST_CALLS}")
    return int(text)


def span(text: str) -> float:
    """A round trip in milliseconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 5000:
        raise argparse.ArgumentTypeError("write milliseconds from 0 to 5000")
    return value


def main(arguments: argparse.Namespace) -> int:
    """Run the demo: 0, or 1 when a call was dropped, or 2 when it could not be run."""
    try:
        run = run_demo(arguments)
    except (NamespacesForbiddenError, SandboxError, ProgramError, TimeoutError, OSError) as error:
        print(f"sipnemo demo: {error}", file=sys.stderr)
        return FAILED
    report = run_report(run)
    if arguments.json:
        print(json.dumps(report, indent=2))
    complete = len(report["moves"]) >= len([event for event in run.events if event.expects_move])
    return OK if complete and not report["dropped"] else DROPPED


def run_demo(arguments: argparse.Namespace) -> Run:
    """Build the world, tell the story, write the report."""
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    topology = ipv4_only(one_gateway(Quality(delay=arguments.rtt / 2)))
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="sipnemo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        screen = stack.enter_context(Screen(sys.stderr if arguments.json else sys.stdout))
        screen.say("building the world: phones, gateway with two uplinks, home server, far ends")
        phones = stack.enter_context(ExitStack())
        world = stack.enter_context(World(topology, record=directory))
        run = Demo(arguments.calls, arguments.rtt, world, directory, output, screen, phones).run()
        write_json(run_report(run), output / "report.json")
        chart = moved_call(run, world.messages(), topology, path_numbers(world))
        (output / "report.html").write_text(page(run, tracks(world), chart, __version__))
        report = run_report(run)
        screen.say(f"{report['calls']} calls, {report['dropped']} dropped; see {output}/report.html")
    return run
