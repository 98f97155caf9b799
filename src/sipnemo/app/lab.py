"""`sipnemo lab`: play a scenario on this machine alone, without root, and hold it against what it expects.

See docs/lab.md for the files and `sipnemo.lab.play` for the playing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TextIO

from sipnemo.app import policies
from sipnemo.app.config import ConfigError, read
from sipnemo.app.scenario import read_scenario, shipped
from sipnemo.app.settings import hs_settings, nms_settings
from sipnemo.lab.namespace import NamespacesForbiddenError, SandboxError
from sipnemo.lab.perform import perform, simulate, survey
from sipnemo.lab.processes import ProgramError
from sipnemo.lab.scenario import Scenario
from sipnemo.lab.setup import write_configuration
from sipnemo.lab.simulated import Builders
from sipnemo.roles.hs.node import HomeServer
from sipnemo.roles.nms.node import MobilityServer

OK: Final = 0
NOT_AS_EXPECTED: Final = 1
FAILED: Final = 2
INSTANCE: Final = "urn:uuid:5f1d0000-0000-4000-8000-000000000001"
"Of the simulated gateway: like everything else there, always the same."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sipnemo lab` takes."""
    parser.add_argument(
        "scenario", metavar="SCENARIO", nargs="?", help="a file, or the name of one that is shipped (see --list)"
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios that are shipped")
    parser.add_argument("--check", action="store_true", help="explain every mistake in the file, and play nothing")
    parser.add_argument("--simulated", action="store_true", help="in virtual time, in seconds, without namespaces")
    parser.add_argument("--seed", metavar="N", type=int, help="what chance does in a simulated run (default: 1)")
    parser.add_argument("--seeds", metavar="N", type=int, help="play so many simulated runs, from --seed on")
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
        scenario = replace(read_scenario(find(arguments.scenario)), name=arguments.scenario)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return FAILED
    if arguments.check:
        print(f"{arguments.scenario}: {scenario.title}: {scenario.calls} calls, {scenario.lasts:g} s; no mistakes")
        return OK
    out = sys.stderr if arguments.json else sys.stdout
    try:
        if arguments.simulated or arguments.seed is not None or arguments.seeds is not None:
            report = play_simulated(scenario, arguments, out)
        else:
            report = perform(scenario, arguments.output, out)
    except (NamespacesForbiddenError, SandboxError, ProgramError, TimeoutError, OSError) as error:
        print(f"sipnemo lab: {error}", file=sys.stderr)
        return FAILED
    if arguments.json:
        print(json.dumps(report, indent=2))
    return OK if report["as_expected"] else NOT_AS_EXPECTED


def play_simulated(scenario: Scenario, arguments: argparse.Namespace, out: TextIO) -> dict[str, Any]:
    """One simulated run, or several; the report."""
    made = builders(scenario)
    first = 1 if arguments.seed is None else arguments.seed
    if arguments.seeds is None:
        return simulate(scenario, made, first, arguments.output, out)
    return survey(scenario, made, range(first, first + arguments.seeds), arguments.output, out)


def builders(scenario: Scenario) -> Builders:
    """The two servers of a simulated run, made from the very files that the programs would read."""
    with tempfile.TemporaryDirectory(prefix="sipnemo-") as directory:
        files = write_configuration(Path(directory), scenario.calls, scenario.efaces, scenario.gateway)
        home = hs_settings(read(files["hs"], "hs"))
        gateway = nms_settings(read(files["nms"], "nms"), INSTANCE)
    policy = policies.load(gateway.policy.name)
    return Builders(
        hs=lambda environment: HomeServer(home, environment),
        nms=lambda environment: MobilityServer(gateway, environment, policy),
    )


def find(name: str) -> Path:
    """The file of that name, or the shipped scenario."""
    path = Path(name)
    return path if path.suffix or path.exists() else shipped().get(name, path)
