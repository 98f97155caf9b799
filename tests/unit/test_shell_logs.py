"""Lines for people and for machines; metrics."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sipnemo.roles.node import Count, Log, Observe
from sipnemo.shell import logs, metrics
from sipnemo.shell.metrics import Declared, Metrics


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(out: io.StringIO) -> list[str]:
    return [re.sub(r"^\S+Z ", "", line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("action", "line"),
    [
        pytest.param(Log("info", "hello"), "info hello", id="plain"),
        pytest.param(
            Log("warning", "path OFF", "a@b", {"path": "wwan0", "rtt": 0.05}),
            "warning path OFF call_id=a@b path=wwan0 rtt=0.05",
            id="Call-ID and fields",
        ),
        pytest.param(Log("info", "x", "", {"why": "no answer"}), 'info x why="no answer"', id="a value with a space"),
        pytest.param(Log("info", "x", "", {"n": None, "e": ""}), 'info x n=null e=""', id="nothing"),
        pytest.param(
            Log("error", "evil\ninfo forged\x1b[2J"), "error evil\\ninfo forged\\x1b[2J", id="control characters"
        ),
        pytest.param(Log("info", "x", "a\r\nb"), "info x call_id=a\\r\\nb", id="control characters in a Call-ID"),
        pytest.param(Log("info", "100 %s"), "info 100 %s", id="no formatting"),
    ],
)
def test_text(action: Log, line: str, out: io.StringIO) -> None:
    logs.configure("text", "debug", out)
    logs.write(action)
    assert lines(out) == [line]
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", out.getvalue())


def test_json(out: io.StringIO) -> None:
    logs.configure("json", "info", out)
    logs.write(Log("info", "path OFF", "a@b", {"path": "wwan0", "level": "never", "gap": 0.05}))
    logs.write(Log("debug", "not shown"))
    (line,) = [json.loads(line) for line in out.getvalue().splitlines()]
    assert line.pop("time").endswith("Z")
    assert line == {"level": "info", "message": "path OFF", "call_id": "a@b", "path": "wwan0", "gap": 0.05}


def test_a_traceback_stays_with_its_line(out: io.StringIO) -> None:
    logs.configure("text", "info", out)
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        logging.getLogger("sipnemo.shell").exception("failed")
    assert lines(out)[0] == "error failed"
    assert all(line.startswith("  ") for line in lines(out)[1:])


def test_lines_for_the_journal_begin_with_their_priority(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch, out: io.StringIO
) -> None:
    with open(os.path.join(tmp_path, "journal"), "w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.configure("text", "info", stream)
        for level in ("error", "warning", "info"):
            logs.write(Log(level, "x"))
        stream.seek(0)
        assert stream.read().splitlines() == ["<3>error x", "<4>warning x", "<6>info x"]


def test_the_same_line_again_and_again_is_only_counted(out: io.StringIO) -> None:
    now = 0.0
    handler = logs.configure("text", "info", out)
    handler.filters[:] = [logs.Repeats(lambda: now)]
    for _turn in range(100):
        logs.write(Log("warning", "no route"))
        logs.write(Log("warning", "no route", "another call"))
    assert len(lines(out)) == 2 * logs.REPEATS
    now = 11.0
    logs.write(Log("warning", "no route"))
    assert lines(out)[-1] == "warning no route (and 95 times more in 11 s)"


def test_metrics_count_observe_and_show_gauges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(metrics.GAUGES, "path_up", Declared("1 while ON", ("eface_id",)))
    made = Metrics(strict=True)
    made.count(Count("udp_dropped", ("send_buffer_full",)))
    made.count(Count("udp_dropped", ("send_buffer_full",), 2))
    made.observe(Observe("move_gap_seconds", 0.05, ("down",)))
    text = made.text({"role": "nms", "paths": 2, "gauges": {"sessions": 3, "path_up": [[["1"], 1], [[2], 0]]}}).decode()
    for line in (
        'sipnemo_udp_dropped_total{reason="send_buffer_full"} 3.0',
        'sipnemo_move_gap_seconds_bucket{direction="down",le="0.06"} 1.0',
        'sipnemo_move_gap_seconds_count{direction="down"} 1.0',
        "sipnemo_paths 2.0",
        "sipnemo_sessions 3.0",
        'sipnemo_path_up{eface_id="1"} 1.0',
        'sipnemo_path_up{eface_id="2"} 0.0',
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize(
    "action",
    [Count("nonsense"), Count("udp_dropped"), Observe("nonsense", 1.0), Observe("move_gap_seconds", 1.0)],
)
def test_an_undeclared_metric_is_an_error_in_tests_and_one_line_in_service(
    action: Count | Observe, caplog: pytest.LogCaptureFixture
) -> None:
    strict, lenient = Metrics(strict=True), Metrics()
    with pytest.raises(KeyError, match="not declared"):
        _take(strict, action)
    _take(lenient, action)
    _take(lenient, action)
    assert caplog.text.count("is not declared in metrics.py") == 1


def _take(made: Metrics, action: Count | Observe) -> None:
    if isinstance(action, Count):
        made.count(action)
    else:
        made.observe(action)


def test_every_metric_in_the_source_is_declared() -> None:
    source = Path(metrics.__file__).parent.parent
    found = {"Count": set[str](), "Observe": set[str]()}
    for path in source.rglob("*.py"):
        for kind, name in re.findall(r'\b(Count|Observe)\(\s*"(\w+)"', path.read_text()):
            found[kind].add(name)
    assert found["Count"] <= set(metrics.COUNTERS)
    assert found["Observe"] <= set(metrics.HISTOGRAMS)


def test_logging_goes_to_stderr_by_default(out: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info", sys.stderr)
    logs.write(Log("info", "here"))
    assert "info here" in capsys.readouterr().err
