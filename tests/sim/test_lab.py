"""The lab in virtual time: every shipped scenario comes as it expects, whatever chance does, and comes again."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sipnemo.app.cli import main
from sipnemo.app.lab import builders
from sipnemo.app.scenario import read_scenario, shipped
from sipnemo.lab.live import Screen
from sipnemo.lab.perform import plan_of
from sipnemo.lab.scenario import Scenario
from sipnemo.lab.simulated import Simulation
from sipnemo.lab.verdict import Verdict, judge

SEEDS = max(1, int(os.environ.get("SIPNEMO_SEEDS", "60")) // 60)
"Of each scenario; one is as many as an ordinary run of the tests can spare."
LARGE = ("crowd", "rush-hour")
"Played, once, when more than one seed is asked for: `make sim`."


def simulation(scenario: Scenario, seed: int) -> Simulation:
    return Simulation(scenario, builders(scenario), plan_of(scenario), seed)


def wrong(played: Simulation) -> list[Verdict]:
    run = played.run(Screen(io.StringIO()))
    return [verdict for verdict in judge(played.chronicle, run) if not verdict.met]


@pytest.mark.req("R1", "R2", "R3", "R6", "R8", "R12", "R13", "R14")
@pytest.mark.parametrize("name", [name for name in shipped() if SEEDS > 1 or name not in LARGE])
def test_everything_comes_as_the_scenario_expects(name: str) -> None:
    scenario = read_scenario(shipped()[name])
    found = {seed: wrong(simulation(scenario, seed)) for seed in range(1, 2 if name in LARGE else SEEDS + 1)}
    told = [f"sipnemo lab {name} --simulated --seed {seed}: {verdicts}" for seed, verdicts in found.items() if verdicts]
    assert not told, "\n".join(told)


@pytest.mark.req("R12", "R17")
def test_a_home_server_whose_host_has_vanished_moves_no_call() -> None:
    scenario = read_scenario(shipped()["home-away"])
    for seed in range(1, 4):
        played = simulation(scenario, seed)
        played.world.network.refuses = False
        # The idle uplink is OFF as nothing proves it, and takes its hold-down to be trusted again.
        assert {verdict.what for verdict in wrong(played)} <= {"uplinks ON at the end"}


def test_the_same_seed_gives_the_same_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for seed in ("7", "7", "8"):
        assert main(["lab", "lossy", "--simulated", "--seed", seed, "--json", "--output", str(tmp_path)]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert reports[0] == reports[1]
    assert reports[0]["moves"] != reports[2]["moves"]
    page = (tmp_path / "report.html").read_text()
    assert "Simulated, seed 8" in page
    ElementTree.fromstring(page.replace("<!DOCTYPE html>", ""))


@pytest.mark.parametrize("option", [["--seed", "3"], ["--seeds", "3"]])
def test_what_comes_otherwise_is_told_with_the_command_that_shows_it_again(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(
        '[scenario]\ntitle = "Wrong"\nshows = "nothing"\nlasts = 1.5\n[[uplink]]\nid = 3\n[calls]\nfrom_inside = 1\n'
        '[timeline]\nevents = [\n{ at = 0.2, command = "path 7 off" },\n]\n'
    )
    assert main(["lab", str(path), "--simulated", *option, "--output", str(tmp_path / "report")]) == 1
    told = capsys.readouterr().out
    assert "no path of E-face 7" in told
    assert f"the same again: sipnemo lab {path} --simulated --seed 3" in told
    assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.parametrize("deed", ["stop", "kill", "restart"])
def test_a_gateway_that_is_started_again_takes_new_calls(deed: str, tmp_path: Path) -> None:
    events = [f'{{ at = 1.0, server = "nms", do = "{deed}" }}', '{ at = 12.0, do = "call", calls = 1 }']
    if deed != "restart":
        events.insert(1, '{ at = 2.0, server = "nms", do = "start" }')
    path = tmp_path / "restart.toml"
    path.write_text(
        '[scenario]\ntitle = "t"\nshows = "s"\n[[uplink]]\nid = 1\n[calls]\nfrom_inside = 1\n'
        f"[timeline]\nevents = [\n{', '.join(events)}\n]\n[expect]\ndropped = 1\n"
    )
    assert not wrong(simulation(read_scenario(path), 1))
