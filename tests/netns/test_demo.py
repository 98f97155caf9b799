"""The whole demo with few calls: real programs, real packets, every kind of move, and the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sipnemo.lab.namespace import available

pytestmark = pytest.mark.skipif(bool(available()), reason=available())


def test_no_call_is_dropped_whatever_happens_to_an_uplink(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "sipnemo", "demo", "--calls", "4", "--rtt", "50", "--json", "--output", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert (report["calls"], report["dropped"]) == (4, 0)
    assert [(move["cause"], move["calls_moved"]) for move in report["moves"]] == [
        ("carrier", 4),
        ("probe", 4),
        ("command", 4),
    ]
    drain = report["moves"][-1]
    assert (drain["lost_up"]["worst"], drain["lost_down"]["worst"]) == (0, 0)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 3
    assert "INVITE" in page


@pytest.mark.parametrize("words", [["--calls", "0"], ["--calls", "many"], ["--rtt", "-1"], ["--rtt", "soon"]])
def test_nonsense_on_the_command_line_is_refused_with_one_clear_line(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "sipnemo", "demo", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "write " in done.stderr
