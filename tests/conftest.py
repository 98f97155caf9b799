"""The closing line of a test run: which groups of tests did not run, and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

SKIPPED: Counter[tuple[str, str]] = Counter()
"(group, why) → how many tests; a group is the folder below tests/ and the file."


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
