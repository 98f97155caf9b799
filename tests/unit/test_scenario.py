"""Scenario files: what they say, every mistake with its place, and how a run is held against them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sipnemo.app.cli import main
from sipnemo.app.config import ConfigError
from sipnemo.app.scenario import read_scenario, shipped
from sipnemo.app.scenario_schema import DEEDS, GATEWAY_TABLES, LAB
from sipnemo.app.toml_lines import find_items
from sipnemo.lab.chronicle import Chronicle
from sipnemo.lab.line import Quality
from sipnemo.lab.report import Call, Event, Gap, Move, Run, Stream
from sipnemo.lab.scenario import Scenario, Step, Uplink, unfolded
from sipnemo.lab.tally import Placed, calls, facts, stream_of
from sipnemo.lab.verdict import judge, limits

GOOD = """\
[scenario]
title = "Tunnel"
shows = "what it shows"

[[uplink]]
id = 2
rate = "4 Mbit/s"
capacity = "2 Mbit/s"

[[uplink]]
id = 1
name = "LTE"
delay_ms = 10

[calls]
from_inside = 3
from_outside = 1

[timeline]
events = [
    # a comment
    { at = 2.0, uplink = 1, do = "silent", way = "up", expect = { moved = 4, gap_down_ms = 900 } },
    { at = 9, uplink = 1, do = "restore" },
    { at = 3, do = "call", calls = 2, from = "outside" },
    { at = 5, command = "path 1 off" },
]

[expect]
on = [1, 2]

[probe]
hold_down = 3.0
"""


SCENARIO = Scenario("t", "s", (Uplink(1, Quality()),), 1, 0, (), 20.0)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "made.toml"
    path.write_text(text)
    return path


def test_a_file_becomes_a_scenario(tmp_path: Path) -> None:
    scenario = read_scenario(write(tmp_path, GOOD))
    assert (scenario.calls, scenario.from_inside, scenario.lasts) == (6, 3, 14.0)
    assert scenario.uplinks == (
        Uplink(1, Quality(delay=10), "LTE", {"priority": 1}),
        Uplink(2, Quality(delay=25, rate=4.0), "", {"priority": 2, "capacity": "2 Mbit/s"}),
    )
    assert scenario.gateway == (("[probe]", {"hold_down": 3.0}),)
    assert scenario.expect == {"dropped": 0, "unanswered": 0, "on": (1, 2)}
    assert [step.do for step in scenario.timeline()] == ["silent", "call", "command", "restore"]
    first = scenario.steps[0]
    assert (first.way, first.expect, first.number) == ("up", {"moved": 4, "gap_down_ms": 900.0}, 1)
    assert first.text(scenario.names) == "uplink 1 (LTE) goes silent, up only"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        pytest.param('do = "silent"', 'do = "silence"', 22, "[timeline] event 1 do: ", id="unknown deed"),
        pytest.param(
            "moved = 4", "moves = 4", 22, "expect.moves: unknown key; did you mean expect.moved?", id="expect"
        ),
        pytest.param('way = "up"', "times = 3", 22, '[timeline] event 1 times: does not go with "silent"', id="astray"),
        pytest.param("at = 9, uplink = 1", "at = 9, uplink = 3", 23, "there is no [[uplink]] with id = 3", id="uplink"),
        pytest.param("at = 9, uplink = 1", "at = 9", 23, "uplink: missing; write uplink", id="missing"),
        pytest.param("at = 9, ", "", 23, "[timeline] event 2 at: missing", id="no instant"),
        pytest.param("at = 9", "at = -1", 23, "-1 is not a number of seconds from 0", id="before the beginning"),
        pytest.param('do = "restore"', 'do = "address-gone"', 23, "uplink 1 is down already since event 1", id="twice"),
        pytest.param('do = "restore"', 'do = "change"', 23, "changes nothing; write delay_ms", id="no change"),
        pytest.param('do = "call"', 'do = "call", command = "status"', 24, "either `do` or `command`", id="both"),
        pytest.param(
            'do = "call", calls = 2, from = "outside"', "calls = 2", 24, "says not what happens", id="neither"
        ),
        pytest.param('"path 1 off"', '"rm -r /"', 25, "is none of these: path, status", id="command"),
        pytest.param(
            'command = "path 1 off"', 'server = "hs", do = "start"', 25, "hs is running; stop it first", id="start"
        ),
        pytest.param("on = [1, 2]", "on = [1, 4]", 29, "there is no [[uplink]] with id = 4", id="on what"),
        pytest.param("on = [1, 2]", "on = 1", 29, "1 is not a list of uplinks' numbers", id="on"),
        pytest.param("hold_down", "holddown", 32, "unknown key; did you mean hold_down?", id="gateway's settings"),
        pytest.param("[probe]", "[trunk]", 31, "trunk", id="not everything can be set"),
        pytest.param("id = 2", "id = 1", 11, "1 is an uplink's already ([[uplink]] 1)", id="same number"),
        pytest.param("from_inside = 3\nfrom_outside = 1", "", 15, "[calls]: makes no call", id="no call"),
        pytest.param("from_inside = 3", "from_inside = 3\nsparse_ms = 50", 17, "is no multiple of 20", id="sparse"),
        pytest.param("from_inside = 3", "from_inside = 3\nmeasure_every = 5", 17, "saves nothing", id="all measured"),
        pytest.param("from_inside = 3", "from_inside = 1999", 15, "are more than 2000", id="too many"),
        pytest.param("shows =", "lasts = 9\nshows =", 3, "is over before the last event (9 s)", id="too short"),
        pytest.param("events = [", "event = [", 19, "holds one key, `events`", id="events"),
        pytest.param("events = [", "events = 5 #", 19, "is not valid TOML", id="no TOML"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, line: int, words: str) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_scenario(path)
    told = str(caught.value)
    assert words in told
    if "TOML" not in words:
        assert any(problem.startswith(f"{path}:{line}: ") and words in problem for problem in told.splitlines()), told


def test_all_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD.replace('title = "Tunnel"\n', "").replace("id = 2", "id = 9").replace("at = 2.0", "at = true")
    assert main(["lab", str(write(tmp_path, text))]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 4
    assert all(words in told for words in ("title: missing", "9 is not a whole number", "true is not a number"))


@pytest.mark.parametrize("name", ["nowhere", "nowhere.toml", ""])
def test_a_scenario_that_is_not_there_is_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", name] if name else ["lab"]) == 2
    assert "nowhere" in capsys.readouterr().err or not name


def test_the_shipped_scenarios_are_listed_and_without_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(shipped())
    assert len(listed) >= 12
    assert main(["lab", "--check", "tunnel"]) == 0


def test_the_document_names_every_key_and_deed() -> None:
    text = (Path(__file__).parents[2] / "docs/lab.md").read_text()
    keys = [key.name for table in LAB.tables if table.name not in GATEWAY_TABLES for key in table.keys]
    missing = {name.removeprefix("expect.") for name in [*keys, *DEEDS, *GATEWAY_TABLES, *shipped()]}
    assert not [name for name in missing if f"`{name}`" not in text and f"`[{name}]`" not in text]


def test_the_tables_of_a_list_are_found_line_by_line() -> None:
    text = "events = [ { a = 1 },\n  { b = 2 },\n # { c = 3 }\n\n{ d = 4 } ]\n[next]\nx = [\n {}\n]"
    assert find_items(text, 1) == [1, 2, 5]


def test_a_flap_is_cuts_and_restores() -> None:
    deeds = unfolded(Step(1.0, "flap", uplink=1, times=2, period=3.0, how="silent", number=4))
    assert [(deed.at, deed.do, deed.minor) for deed in deeds] == [
        (1.0, "flap", False),
        (1.0, "silent", True),
        (2.5, "restore", True),
        (4.0, "silent", True),
        (5.5, "restore", True),
    ]
    assert {deed.number for deed in deeds} == {4}


@pytest.mark.parametrize(
    ("at", "path", "text"),
    [
        pytest.param(1.1, "1/198.51.100.7", "cut 1", id="the line's own"),
        pytest.param(2.1, "1/198.51.100.7", "cut 1", id="not another line's, though later"),
        pytest.param(2.1, "2/203.0.113.7", "cut 2", id="the other line's"),
        pytest.param(2.1, "3/198.18.3.7", "cut 2", id="the last of all when the line's own has none"),
        pytest.param(3.1, "1/198.51.100.7", "kill hs", id="a server's death concerns every line"),
        pytest.param(4.1, "1/198.51.100.7", "kill hs", id="a new call moves no other"),
        pytest.param(0.99, "1/198.51.100.7", "cut 1", id="clocks read a moment apart"),
        pytest.param(0.5, "1/198.51.100.7", None, id="nothing was done yet"),
    ],
)
def test_a_move_belongs_to_what_was_done_to_its_path(at: float, path: str, text: str | None) -> None:
    call = Event(4.0, "call", closes=False)
    events = [
        Event(1.0, "cut 1", "uplink1"),
        Event(2.0, "cut 2", "uplink2"),
        Event(3.0, "kill hs", closes=False),
        call,
    ]
    chronicle = Chronicle(SCENARIO)
    chronicle.events, chronicle.harmless = events, [call]
    found = chronicle.cause(at, path)
    assert (found and found.text) == text


def test_of_a_crowd_every_so_manyth_call_is_measured() -> None:
    placed = {number: Placed("inside") for number in range(1, 8)}
    assert [call.measured for call in calls(placed, {}, {}, {}, 9.0, 3)] == [True, False, False] * 2 + [True]
    assert all(call.measured for call in calls(placed, {}, {}, {}, 9.0))


@pytest.mark.parametrize("virtual", [True, False])
def test_percentiles_bind_in_virtual_time_only(virtual: bool) -> None:
    call = Call("a", "in1", "out1", 10.0, up=ALIVE, down=replace(ALIVE, gaps=(Gap(12.1, 120.0, 5),)))
    found = list(limits("t", {"gap_down_ms": 100, "gap_down_p99_ms": 100}, [call], 0.0, 20.0, virtual))
    assert [(one.met, one.binding) for one in found] == [(False, True), (False, virtual)]
    sparse = [replace(call, measured=False)]
    assert [one.found for one in limits("t", {"lost_down": 1}, sparse, 0.0, 20.0, virtual)] == ["0"]


def test_a_first_attempt_that_was_given_up_is_not_the_end_of_a_call() -> None:
    told = [("ended", 1.0), ("answered", 2.0), ("ended", 9.0)]
    events = [{"event": event, "account": "out1", "call_id": "a", "t": at} for event, at in told]
    assert facts(events) == {"out1": {"answered": 2.0, "ended": 9.0, "call_id": "a"}}


@pytest.mark.parametrize(
    ("numbers", "gaps"),
    [
        pytest.param([1, 2, 3], [], id="all in order"),
        pytest.param([1, 2, None, None, 5, 6], [(60.0, 2)], id="two lost"),
        pytest.param([1, 3, 2, 4], [], id="one late"),
        pytest.param([1, 2, 2, 3], [(40.0, 0)], id="one twice"),
        pytest.param([1, 4, 2, 5], [(20.0, 1)], id="one late, one lost"),
        pytest.param([1, None, None, 2], [(60.0, 0)], id="silence"),
        pytest.param([7, 8], [], id="what was sent before is not missed"),
    ],
)
def test_a_stream_is_judged_by_its_arrivals(numbers: list[int | None], gaps: list[tuple[float, int]]) -> None:
    arrivals = [(10 + 0.02 * turn, number, 0.0) for turn, number in enumerate(numbers) if number is not None]
    found = stream_of(arrivals)
    assert [(round(gap.gap_ms, 1), gap.lost) for gap in found.gaps] == gaps
    assert found.received == len({number for number in numbers if number})


# ------------------------------------------------------------------------------------------------- the verdict

CUT = Event(12.0, "uplink 1 is unplugged", "uplink1")
MEND = Event(15.0, "uplink 1 is restored", "uplink1")
ALIVE = Stream(received=900, last_at=29.99)


def stood(expect: dict[str, Any], **step: Any) -> dict[str, bool]:
    """What was expected of a run with one cut, and whether it came; the run is always the same."""
    steps = (Step(2.0, "carrier-down", uplink=1, expect=step, number=1), Step(5.0, "restore", uplink=1, number=2))
    scenario = Scenario("t", "s", (Uplink(1, Quality()), Uplink(2, Quality())), 2, 0, steps, 20.0, expect=expect)
    made = (
        Call("a", "in1", "out1", 10.0, up=ALIVE, down=replace(ALIVE, gaps=(Gap(12.1, 120.0, 5, stalled_ms=30.0),))),
        Call("b", "in2", "out2", 10.0, ended_at=20.0, up=ALIVE, down=ALIVE),
        Call("c", "in3", "out3", None),
    )
    moves = (Move(CUT, "carrier", "1/x", "2/y", 12.003, ("a", "b")),)
    run = Run(50.0, made, (CUT, MEND), moves, started_at=10.0, hangup_at=30.0)
    chronicle = Chronicle(scenario)
    chronicle.done = {1: [CUT], 2: [MEND]}
    chronicle.waves = {(12.003, 1): {"each": [{"ended": "verified"}, {"ended": "unverified"}]}}
    chronicle.sessions = {"a": {"moves": 1}, "b": {"moves": 2}}
    chronicle.on = [2]
    return {verdict.what: verdict.met for verdict in judge(chronicle, run)}


@pytest.mark.parametrize(
    ("expect", "step", "met"),
    [
        pytest.param({"dropped": 1, "unanswered": 1}, {}, True, id="as many lost as may be"),
        pytest.param({"dropped": 0, "unanswered": 1}, {}, False, id="one call too many lost"),
        pytest.param({"dropped": 1, "unanswered": 0}, {}, False, id="one call too many unanswered"),
        pytest.param({"unverified": 1}, {}, True, id="unverified"),
        pytest.param({"unverified": 0}, {}, False, id="too many unverified"),
        pytest.param({"moves_per_call": 1}, {}, False, id="one call moved twice"),
        pytest.param({"on": (2,)}, {}, True, id="paths as they should be"),
        pytest.param({"on": (1, 2)}, {}, False, id="a path is missing"),
        pytest.param({}, {"moved": 2, "cause": "carrier", "detected_ms": 5}, True, id="moved as expected"),
        pytest.param({}, {"moved": 3}, False, id="a call stayed"),
        pytest.param({}, {"cause": "probe"}, False, id="another cause"),
        pytest.param({}, {"detected_ms": 2}, False, id="found out too late"),
        pytest.param({}, {"gap_down_ms": 90, "lost_down": 5, "gap_up_ms": 20}, True, id="the sender's own delay"),
        pytest.param({}, {"gap_down_ms": 89}, False, id="too long a gap"),
        pytest.param({"lost_down": 4}, {}, False, id="too much lost in all"),
        pytest.param({}, {"gap_down_p99_ms": 90, "lost_down_p99": 5}, True, id="few are all"),
        pytest.param({}, {"gap_down_p99_ms": 89}, False, id="of a hundred"),
    ],
)
def test_a_run_is_held_against_what_was_expected(expect: dict[str, Any], step: dict[str, Any], met: bool) -> None:
    assert all(stood({"dropped": 1, "unanswered": 1} | expect, **step).values()) is met
