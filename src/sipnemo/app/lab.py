"""`sipnemo lab`: play a scenario on this machine alone, without root, and hold it against what it expects.

See docs/lab.md for the files and `sipnemo.lab.play` for the playing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from sipnemo.app.config import ConfigError
from sipnemo.app.scenario import read_scenario, shipped
from sipnemo.lab.namespace import NamespacesForbiddenError, SandboxError
from sipnemo.lab.perform import perform
from sipnemo.lab.processes import ProgramError

OK: Final = 0
NOT_AS_EXPECTED: Final = 1
FAILED: Final = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sipnemo lab` takes."""
    parser.add_argument(
        "scenario", metavar="SCENARIO", nargs="?", help="a file, or the name of one that is shipped (see --list)"
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios that are shipped")
    parser.add_argument("--check", action="store_true", help="explain every mistake in the file, and play nothing")
    parser.add_argument("--json", action="store_true", help="print report.json on stdout, the story on stderr")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, default=Path("lab-report"), help="where to (default: lab-report)"
    )


def main(arguments: argparse.Namespace) -> int:
    """Play it: 0 when all came as expected, 1 when not, 2 when it could not be played."""
    if arguments.list:
        for name, path in shipped().items():
            print(f"{name:20} {read_scenario(path).shows}")
        return OK
    if not arguments.scenario:
        print("sipnemo lab: name a scenario: a file, or one of: " + ", ".join(shipped()), file=sys.stderr)
        return FAILED
    try:
        scenario = read_scenario(find(arguments.scenario))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return FAILED
    if arguments.check:
        print(f"{arguments.scenario}: {scenario.title}: {scenario.calls} calls, {scenario.lasts:g} s; no mistakes")
        return OK
    try:
        report = perform(scenario, arguments.output, sys.stderr if arguments.json else sys.stdout)
    except (NamespacesForbiddenError, SandboxError, ProgramError, TimeoutError, OSError) as error:
        print(f"sipnemo lab: {error}", file=sys.stderr)
        return FAILED
    if arguments.json:
        print(json.dumps(report, indent=2))
    return OK if report["as_expected"] else NOT_AS_EXPECTED


def find(name: str) -> Path:
    """The file of that name, or the shipped scenario."""
    path = Path(name)
    return path if path.suffix or path.exists() else shipped().get(name, path)
