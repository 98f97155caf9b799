"""JSON answers as tables for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 250
"Columns when the output is a file or a pipe: nothing is cut."

_STYLES = {"ON": "green", "on": "green", "OFF": "red", "off": "red"}
_EMPTY = {
    "paths": "no paths: no uplink has an address",
    "bindings": "nobody is registered",
    "sessions": "no calls",
    "moves": "no call has moved yet",
}


def print_answer(name: str, answer: Any) -> None:
    """Print one admin answer."""
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    rows = answer[name] if isinstance(answer, Mapping) and isinstance(answer.get(name), list) else answer
    if isinstance(rows, Mapping):
        _print_mapping(console, rows)
    elif isinstance(rows, Sequence) and not isinstance(rows, str):
        if rows:
            console.print(_table(rows))
        else:
            console.print(_EMPTY.get(name, "nothing"))
    else:
        console.print(_cell(rows))


def _print_mapping(console: Console, values: Mapping[str, Any]) -> None:
    """Plain values first, one a line; then a table for each list."""
    grid = Table.grid(padding=(0, 2))
    lists = {key: value for key, value in values.items() if _is_rows(value)}
    for key, value in values.items():
        if key not in lists and key != "gauges":  # for Prometheus
            grid.add_row(Text(_title(key), "bold"), _cell(value))
    console.print(grid)
    for key, rows in lists.items():
        table = _table(rows)
        table.title = _title(key)
        console.print(table)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(rows: Sequence[Any]) -> Table:
    table = Table(box=SIMPLE, title_justify="left", pad_edge=False)
    rows = [row if isinstance(row, Mapping) else {"": row} for row in rows]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        numbers = all(isinstance(row.get(column), int | float | None) for row in rows)
        table.add_column(_title(column), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _title(key: str) -> str:
    return key.replace("_", " ")


def _cell(value: Any) -> Text:
    match value:
        case None | "":
            return Text("–", "dim")
        case bool():
            return Text("yes" if value else "no")
        case float():
            return Text(f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}")
        case list() | tuple():
            plain = all(isinstance(item, str | int | float) for item in value)
            return Text(", ".join(map(str, value)) if plain else str(len(value)))
        case Mapping():
            return Text(", ".join(f"{key} {_cell(item)}" for key, item in value.items()) or "–")
        case _:
            return Text(str(value), _STYLES.get(str(value), ""))
