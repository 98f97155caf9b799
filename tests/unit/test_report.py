"""The report: whose gap is it, what counts as dropped, and a page that stands alone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sipnemo.lab.charts import Arrow, Ladder, Track, histogram
from sipnemo.lab.report import (
    Call,
    Event,
    Gap,
    Move,
    Run,
    Stream,
    attributed,
    run_report,
    stream_from,
    write_json,
)
from sipnemo.lab.report_html import page
from sipnemo.lab.spread import Figures, figures, lines, nice_step
from sipnemo.lab.spread import histogram as spread

CUT = Event(10.0, "uplink 1 unplugged", "uplink1", expects_move=True)
RESTORE = Event(15.0, "uplink 1 plugged in again", "uplink1")
DRAIN = Event(20.0, "sipnemo path 1 off", "uplink1", expects_move=True)


@pytest.mark.parametrize(
    ("gaps", "gap_ms", "lost"),
    [
        pytest.param([], 20.0, 0, id="nothing amiss is one packet interval"),
        pytest.param([Gap(10.07, 70.0, 2)], 70.0, 2, id="one gap"),
        pytest.param([Gap(10.03, 30.0, 1), Gap(10.09, 60.0, 2)], 60.0, 3, id="longest of two, losses added"),
        pytest.param([Gap(9.9, 500.0, 20)], 20.0, 0, id="ended before the cut"),
        pytest.param([Gap(10.0, 40.0, 1)], 40.0, 1, id="ends with the cut itself"),
        pytest.param([Gap(15.0, 500.0, 20)], 20.0, 0, id="belongs to the next event"),
        pytest.param([Gap(10.2, 0.0, 1)], 20.0, 1, id="a loss that left no silence"),
    ],
)
def test_a_gap_belongs_to_the_window_it_ends_in(gaps: list[Gap], gap_ms: float, lost: int) -> None:
    assert attributed(Stream(gaps=tuple(gaps)), 10.0, 15.0) == (gap_ms, lost)


ALIVE = Stream(received=900, last_at=29.99)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        pytest.param(Call("a", "in1", "out1", 1.0, None, ALIVE, ALIVE), "", id="lived"),
        pytest.param(Call("a", "in1", "out1", None, None, ALIVE, ALIVE), "never answered", id="never answered"),
        pytest.param(Call("a", "in1", "out1", 1.0, 28.0, ALIVE, ALIVE), "ended 2.0 s before", id="hung up by itself"),
        pytest.param(
            Call("a", "in1", "out1", 1.0, None, replace(ALIVE, last_at=20.0), ALIVE), "no media up", id="dead one way"
        ),
        pytest.param(Call("a", "in1", "out1", 1.0, None, ALIVE, Stream()), "no media down", id="never any media"),
    ],
)
def test_a_call_is_dropped_when_it_ended_or_fell_silent(call: Call, reason: str) -> None:
    found = call.dropped(30.0)
    assert found.startswith(reason) if reason else not found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Figures(0, 0, 0)),
        ([70.0], Figures(70, 70, 70)),
        ([20, 30, 71.26], Figures(30, 71.3, 71.3)),
        (list(range(1, 501)), Figures(250.5, 495, 500)),
    ],
)
def test_figures_are_median_99th_percentile_and_worst(values: list[float], expected: Figures) -> None:
    assert figures(values) == expected


def test_many_gaps_are_told_as_a_histogram() -> None:
    found = spread([20.0] * 3 + [45.0] + [139.9])
    assert found == {"start": 20.0, "step": 10.0, "calls": [3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]}
    assert spread([7.0, 7.0])["calls"] == [2]
    assert spread([])["calls"] == []
    move = {"per_call": [None] * 100, "histogram": {"gap_up_ms": spread([20.0] * 100), "gap_down_ms": found}}
    assert lines(move) == [
        "gap up, ms 20 █ 21 (a sign is 1)",
        "gap down, ms 20 █·▃········▃ 140 (a sign is 10)",
    ]
    assert lines(move | {"per_call": [None] * 10}) == []


def run() -> Run:
    calls = (
        Call(
            "call-1@demo",
            "in1",
            "out1",
            1.0,
            up=replace(ALIVE, gaps=(Gap(10.06, 41.0, 1), Gap(20.5, 21.0, 0))),
            down=replace(ALIVE, gaps=(Gap(10.08, 78.0, 3),)),
        ),
        Call("call-2@demo", "out2", "in2 <&>", 1.1, up=ALIVE, down=replace(ALIVE, gaps=(Gap(10.07, 70.0, 2),))),
        Call("call-3@demo", "out3", "in3", 1.1, ended_at=12.0),
    )
    moves = (
        Move(CUT, "carrier", "1", "2", 10.0008, ("call-1@demo", "call-2@demo")),
        Move(DRAIN, "command", "2", "1", 20.12, ("call-1@demo", "call-2@demo")),
    )
    return Run(50.0, calls, (CUT, RESTORE, DRAIN), moves, started_at=0.0, hangup_at=30.0)


def test_report_json_has_the_figures_of_every_move(tmp_path: Path) -> None:
    write_json(run_report(run()), tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["calls"], report["dropped"]) == (3, 1)
    carrier, command = report["moves"]
    assert (carrier["cause"], carrier["detected_ms"], carrier["calls_moved"]) == ("carrier", 0.8, 2)
    assert carrier["gap_up_ms"] == {"median": 30.5, "p99": 41.0, "worst": 41.0}
    assert carrier["gap_down_ms"] == {"median": 74.0, "p99": 78.0, "worst": 78.0}
    assert carrier["lost_up"] == {"median": 0.5, "p99": 1.0, "worst": 1.0}
    assert carrier["lost_down"] == {"median": 2.5, "p99": 3.0, "worst": 3.0}
    assert (command["cause"], command["detected_ms"]) == ("command", 0.0)
    assert command["gap_up_ms"] == {"median": 20.5, "p99": 21.0, "worst": 21.0}
    assert command["lost_down"] == {"median": 0.0, "p99": 0.0, "worst": 0.0}


def test_a_phones_record_becomes_a_stream() -> None:
    record = {"packets": 5, "last_at": 3.5, "gaps": [{"at": 2.0, "gap_ms": 60.5, "lost": 2}]}
    assert stream_from(record) == Stream(5, 3.5, (Gap(2.0, 60.5, 2),))
    assert stream_from({}) == Stream()


def html() -> str:
    tracks = [
        Track("path 1 up", "path1", [n * 0.02 for n in range(500)], dropped=[10 + n * 0.02 for n in range(50)]),
        Track("path 2 up", "path2", [10 + n * 0.02 for n in range(1000)]),
        Track("path 2 down", "path2", []),
    ]
    arrows = [Arrow(10.001, "p2", "hs", "INVITE"), Arrow(10.05, "hs", "p2", "200 OK <x>", dropped=True)]
    columns = [("p2", "SIP-NMS\npath 2", "path2"), ("hs", "SIP-HS\n192.0.2.10", "")]
    return page(run(), tracks, Ladder("in1 → out1", columns, arrows, [CUT]), "0.1.0")


def test_the_page_is_well_formed() -> None:
    root = ElementTree.fromstring(html().replace("<!DOCTYPE html>", ""))
    assert len(root.findall(".//svg")) == 3
    assert root.find(".//title") is not None


def test_the_page_needs_nothing_but_itself() -> None:
    text = html()
    assert not re.search(r"(?i)https?:|//[a-z]|\bsrc=|\bhref=|@import|url\(|<script|<link", text)


def test_the_page_says_which_call_was_dropped() -> None:
    assert "Dropped: call-3@demo: never" not in html()
    assert "Dropped: call-3@demo: ended 18.0 s before it was hung up" in html()


def test_only_packets_of_the_time_shown_are_counted() -> None:
    assert histogram([9.9, 10.0, 10.4, 10.6, 10.999, 11.0], start=10.0, span=1.0, bins=2) == [2, 2]


@pytest.mark.parametrize("span", [0.1, 3.0, 20.0, 45.0, 600.0, 86400.0])
def test_ticks_are_few_and_at_round_numbers(span: float) -> None:
    step = nice_step(span)
    assert span / step <= 12
    assert f"{step:g}".lstrip("0.")[0] in "125"
