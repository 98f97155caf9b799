"""The closing line of a test run (which groups of tests did not run, and why), and the table of proven requirements."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

SKIPPED: Counter[tuple[str, str]] = Counter()
"(group, why) → how many tests; a group is the folder below tests/ and the file."

ROWS = Path(__file__).parent.parent / "docs" / "requirements.md"
proofs: defaultdict[str, Counter[str]] = defaultdict(Counter)
"Requirement → folder of tests → how many tests name it."

stories: defaultdict[tuple[str, bool], dict[str, int]] = defaultdict(dict)
"Requirement and whether real programs or a real kernel play → the test functions that prove it → with how many cases."


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--requirements --collect-only -q` prints which rows of docs/requirements.md are proven by how many tests."""
    parser.addoption("--requirements", action="store_true", help="print a table of requirements and their tests")
    parser.addoption("--stories", action="store_true", help="print which tests prove what users complain of elsewhere")


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    """Note what each test proves, and leave out what is marked `long` unless it is asked for (`make phones`)."""
    for item in items:
        for mark in item.iter_markers("req"):
            for row in mark.args:
                file = Path(item.location[0])
                proofs[row][file.parent.name] += 1
                told = stories[row, file.parent.name in ("interop", "netns")]
                name = f"{file.stem}::{getattr(item, 'originalname', item.name)}"
                told[name] = told.get(name, 0) + 1
    long = [item for item in items if item.get_closest_marker("long")]
    if long and not os.environ.get("SIPNEMO_LONG"):
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, rows without a test included."""
    if config.getoption("--stories"):
        print_stories(terminalreporter)
    if not config.getoption("--requirements"):
        return
    for row in re.findall(r"^\| ((?:MH|RO|R)-?\d+b?) ", ROWS.read_text(), re.MULTILINE):
        found = ", ".join(f"{folder} {number}" for folder, number in sorted(proofs[row].items()))
        terminalreporter.write_line(f"{row:6} {found or 'no test'}")


def print_stories(reporter: pytest.TerminalReporter) -> None:
    """R-row × (simulated story, real programs): each test function with the number of its cases."""
    for row in re.findall(r"^\| (R\d+) ", ROWS.read_text(), re.MULTILINE):
        for real, heading in ((False, "simulated"), (True, "real")):
            found = stories[row, real]
            reporter.write_line(f"{row:4} {heading:9} {sum(found.values()):4} {'' if found else 'no test'}")
            for name, cases in sorted(found.items()):
                reporter.write_line(f"{'':19} {name}" + (f" ×{cases}" if cases > 1 else ""))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note every skipped test under its group."""
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        path = Path(report.nodeid.partition("::")[0])
        SKIPPED[f"{path.parent.name}/{path.stem}", report.longrepr[2].removeprefix("Skipped: ")] += 1


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say it in one line, after everything else; nothing when every test ran."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if SKIPPED and reporter:
        groups = "; ".join(f"{group} ({number}): {why}" for (group, why), number in sorted(SKIPPED.items()))
        reporter.write_line(f"skipped: {groups}")
