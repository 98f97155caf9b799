"""The shipped scenarios, played: real programs, real packets, real time. `make lab` plays all, other runs the quick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sipnemo.app.scenario import read_scenario, shipped
from sipnemo.lab.namespace import available

pytestmark = pytest.mark.skipif(bool(available()), reason=available())

ALL = bool(os.environ.get("SIPNEMO_LAB"))
PLAYED = [name for name, path in shipped().items() if ALL or read_scenario(path).quick]

CROWDED = ("crowd",)
"Where a slow machine may make the gateway late, so that calls move otherwise than expected; none may be lost."


@pytest.mark.parametrize("name", PLAYED)
def test_everything_comes_as_the_scenario_expects(name: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "sipnemo", "lab", name, "--json", "--output", str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout)
    assert report["dropped"] == 0
    assert done.returncode == 0 or name in CROWDED, done.stderr
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["expectations"]
    page = (tmp_path / "report.html").read_text()
    assert "As expected?" in page
    ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))


def test_what_comes_otherwise_is_told_and_makes_the_exit_status(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(
        '[scenario]\ntitle = "Wrong"\nshows = "nothing"\nlasts = 1.5\n[[uplink]]\nid = 3\n[calls]\nfrom_inside = 1\n'
        "[timeline]\nevents = [\n"
        '{ at = 0.1, uplink = 3, do = "change", delay_ms = 5, expect = { moved = 1 } },\n'
        '{ at = 0.2, command = "path 7 off" },\n]\n'
    )
    argv = [sys.executable, "-m", "sipnemo", "lab", str(path), "--output", str(tmp_path / "report")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "NOT AS EXPECTED: 0.1 s, uplink 3: delay 5 ms: calls moved: 0, expected 1" in done.stdout
    assert "no path of E-face 7" in done.stdout
