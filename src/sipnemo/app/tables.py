"""JSON answers as tables for people: the columns that matter, in units that read well. `--json` has everything."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE: Final = 250
"Columns when the output is a file or a pipe: nothing is cut."

_COLUMNS: Final = {
    "paths": "eface_id device contact status reason command priority load rtt sessions settling penalty reuse_in "
    "registered registration_error mapped since",
    "bindings": "uri account contact priority reg_id expires expires_in flow answers user_agent",
    "sessions": "eface_id path status seconds moves from_uri to_uri call_id",
    "moves": "move cause planned from_path to_paths calls ended detected_ms answered_ms gap_down_ms gap_up_ms "
    "duration_ms reasons",
    "what-if": "path status sessions load room",
    "what-if calls": "from_path to_path from_uri to_uri call_id",
}
"What is shown of each view; columns in which nothing stands are left out."

_EMPTY: Final = {
    "paths": "no paths: no uplink has an address",
    "bindings": "nobody is registered",
    "sessions": "no calls",
    "moves": "no call has moved yet",
}
_STYLES: Final = {"ON": "green", "OFF": "red"}


def print_answer(name: str, answer: Any) -> None:
    """Print one admin answer."""
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    if name == "what-if":
        _print_what_if(console, answer)
        return
    view = "paths" if name == "path" else name
    rows = answer[view] if isinstance(answer, Mapping) and isinstance(answer.get(view), list) else answer
    if isinstance(rows, Mapping):
        console.print(_grid(rows))
    elif isinstance(rows, list) and rows and all(isinstance(row, Mapping) for row in rows):
        console.print(_table(view, rows))
    else:
        console.print(_EMPTY.get(view, "nothing") if rows == [] else str(rows), markup=False)


def _print_what_if(console: Console, answer: Mapping[str, Any]) -> None:
    """Every path now and then, every call that would move, and the sentence that sums it up."""
    rows = [dict(row) for row in answer["paths"]]
    for row in rows:
        for key in ("status", "sessions", "load"):
            then = row.pop(f"{key}_then")
            row[key] = f"{_cell(key, row[key])} → {_cell(key, then)}" if row[key] != then else row[key]
    console.print(_table("what-if", rows))
    if answer["each"]:
        console.print(
            _table("what-if calls", [{**row, "to_path": row["to_path"] or "nowhere"} for row in answer["each"]])
        )
    room = {
        True: "there is room",
        False: "there is no room",
        None: "whether there is room is not known: write capacity",
    }
    told = f"{answer['moved']} of {answer['calls']} calls would move"
    told += f", {answer['stranded']} would find no uplink" if answer["stranded"] else ""
    told += f"; {room[answer['room']]}" if answer["each"] else ""
    console.print(f"{told}; new calls would take {answer['new_calls'] or 'nothing'}", markup=False)


def _grid(values: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for key, value in values.items():
        if key != "gauges":  # for Prometheus
            grid.add_row(Text(_title(key), "bold"), _cell(key, value))
    return grid


def _table(view: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    there = dict.fromkeys(key for row in rows for key in row if any(row.get(key) not in (None, "", {}) for row in rows))
    wanted = [key for key in _COLUMNS.get(view, "").split() if key in there] or list(there)
    table = Table(box=SIMPLE, pad_edge=False)
    for key in wanted:
        numbers = all(isinstance(row.get(key), int | float | None) for row in rows)
        table.add_column(_title(key), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(key, row.get(key)) for key in wanted))
    return table


def _title(key: str) -> str:
    name, unit = key.removesuffix("_ms"), " (ms)" if key.endswith("_ms") else ""
    return name.replace("_", " ") + unit


def _cell(key: str, value: Any) -> Text:
    if value is None or value == "" or value == {}:
        return Text("–", "dim")
    if isinstance(value, int | float) and not isinstance(value, bool) and key in _UNITS:
        return Text(_UNITS[key](value))
    return Text(_plain(value), _STYLES.get(value, "") if isinstance(value, str) else "")


def _plain(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3g}" if abs(value) < 10 else f"{value:.0f}"
        case {"median": median, "worst": worst}:
            return f"{_plain(median)}, worst {_plain(worst)}"
        case list() | tuple():
            return ", ".join(_plain(item) for item in value)
        case Mapping():
            return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
        case _:
            return str(value)


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


_UNITS: Final[Mapping[str, Callable[[float], str]]] = {
    "load": lambda percent: f"{percent:.0f} %",
    "rtt": lambda seconds: f"{seconds * 1000:.1f} ms",
    **dict.fromkeys(("since", "seconds", "expires", "expires_in", "reuse_in"), _span),
}
"How the numbers of some columns are written."
