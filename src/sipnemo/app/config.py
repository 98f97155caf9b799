"""A configuration file to checked values; every mistake in it is found in one go and says what to do.

`read` works by the tables of `schema.py`; `settings.py` makes the roles' settings from what it returns.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from sipnemo.app.schema import HS, NMS, REQUIRED, SCHEMAS, UNSET, Key, Schema, Table
from sipnemo.app.toml_lines import Place, find_lines
from sipnemo.app.values import Context

_AT: Final = re.compile(r"\(at line (\d+), column (\d+)\)")

Row = dict[str, Any]
"Key → value as the settings want it; keys that were not written and have no default are absent."


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, or with `warning` something allowed that is likely one."""

    file: str
    line: int
    "0: unknown."

    where: str
    "The TOML key, for example `[[eface]] 2 capacity`; empty: the file as a whole."

    what: str
    "What is wrong and what to do."

    warning: bool = False

    def __str__(self) -> str:
        parts = [f"{self.file}:{self.line}" if self.line else self.file, self.where, self.what]
        return ": ".join(part for part in parts if part)


class ConfigError(Exception):
    """The configuration cannot be used."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class SettingError(Exception):
    """What a correct configuration names cannot be had on this host; the text says what to do."""


@dataclass(slots=True)
class Config:
    """What one file says, table by table."""

    schema: Schema
    path: str
    tables: dict[str, list[Row]]
    "Every available table of the schema; one row, or as many as were written when there may be many."

    problems: list[Problem] = field(default_factory=list)
    lines: dict[Place, int] = field(default_factory=dict)

    written: set[Place] = field(default_factory=set)
    "Every known key that stands in the file, whether or not its value could be read."

    def table(self, name: str) -> Row:
        """The row of a table of which there is one."""
        return self.tables[name][0]

    def report(self, table: str, index: int, key: str, what: str, *, warning: bool = False) -> None:
        """Note a problem with a key, or with the whole table when `key` is empty."""
        self.problems.append(
            Problem(self.path, self._line(table, index, key), self._where(table, index, key), what, warning)
        )

    @property
    def warnings(self) -> list[Problem]:
        """What is allowed and yet likely a mistake."""
        return [problem for problem in self.problems if problem.warning]

    @property
    def errors(self) -> list[Problem]:
        """What makes the file unusable."""
        return [problem for problem in self.problems if not problem.warning]

    def _line(self, table: str, index: int, key: str) -> int:
        return self.lines.get((table, index, key)) or self.lines.get((table, index, ""), 0)

    def _where(self, table: str, index: int, key: str) -> str:
        known = next((known for known in self.schema.tables if known.name == table), None)
        header = known.header if known else f"[{table}]"
        number = (
            f" {index + 1}" if known and known.many and any(place[:2] == (table, 1) for place in self.lines) else ""
        )
        return f"{header}{number} {key}".strip()


def read(path: str | Path, command: str | None = None, *, read_files: bool = True) -> Config:
    """The checked configuration in a file; raises ConfigError with every problem found.

    `command` is "nms" or "hs" when only that kind will do.
    """
    config = examine(path, command, read_files=read_files)
    if config.errors:
        raise ConfigError(config.problems)
    return config


def examine(path: str | Path, command: str | None = None, *, read_files: bool = True) -> Config:
    """Like `read`, but mistakes within the tables are only noted in `problems`."""
    from sipnemo.app.checks import check

    text, document = load(Path(path))
    lines = find_lines(text)
    config = read_tables(_kind(str(path), document, lines, command), path, document, lines, read_files=read_files)
    check(config)
    config.problems.sort(key=lambda problem: problem.line)
    return config


def read_tables(
    schema: Schema, path: str | Path, document: dict[str, Any], lines: dict[Place, int], *, read_files: bool = True
) -> Config:
    """What a document says, by a schema; mistakes are noted in `problems`."""
    config = Config(schema, str(path), {}, lines=lines)
    context = Context(Path(path).absolute().parent, read_files=read_files)
    for name in document.keys() - {table.name for table in schema.tables}:
        config.report(name, 0, "", "unknown table" + _suggest(name, [table.name for table in schema.tables]))
    for table in schema.tables:
        config.tables[table.name] = _rows(config, table, document.get(table.name), context)
    return config


def load(path: Path) -> tuple[str, dict[str, Any]]:
    """A TOML file's text and what it says; raises ConfigError."""
    try:
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        return text, tomllib.loads(text)
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(path), 0, "", "is not a text file in UTF-8")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_not_toml(str(path), str(error))]) from None


def _not_toml(path: str, error: str) -> Problem:
    found = _AT.search(error)
    hint = "; a text needs quotes around it" if error.startswith("Invalid value") else ""
    what = f"is not valid TOML: {_AT.sub('', error).strip()}"
    return Problem(path, int(found[1]) if found else 0, "", what + (f", column {found[2]}" if found else "") + hint)


def _kind(path: str, document: dict[str, Any], lines: dict[Place, int], command: str | None) -> Schema:
    found = [schema for schema in (NMS, HS) if schema.command in document]
    if len(found) > 1:
        line = max(lines.get((schema.command, 0, ""), 0) for schema in found)
        what = "[nms] and [hs] are two programs; write one file for each"
        raise ConfigError([Problem(path, line, "", what)])
    if not found and command is None:
        what = "has neither [nms] nor [hs], so it configures neither a gateway nor a home server"
        raise ConfigError([Problem(path, 0, "", what)])
    if found and command is not None and found[0].command != command:
        other = found[0].command
        what = f"configures `sipnemo {other}`; run: sipnemo {other} --config {path}"
        raise ConfigError([Problem(path, lines.get((other, 0, ""), 0), f"[{other}]", what)])
    return found[0] if found else SCHEMAS[command or "nms"]


def _rows(config: Config, table: Table, written: Any, context: Context) -> list[Row]:
    """The table's rows; of a table that may be left out, one with the defaults."""
    if not table.available:
        if written is not None:
            config.report(table.name, 0, "", f"not available in this version ({table.meaning}); remove this table")
        return []
    if written is None:
        if table.required:
            config.report(table.name, 0, "", f"missing; {_purpose(table)}")
        return [] if table.many else [_read_row(config, table, 0, None, context)]
    if table.many != isinstance(written, list):
        other = f"[{table.name}]" if table.many else f"[[{table.name}]]"
        config.report(table.name, 0, "", f"must be written {table.header}, not {other}")
        return []
    rows = written if isinstance(written, list) else [written]
    if not all(isinstance(row, dict) for row in rows):
        config.report(table.name, 0, "", f"is a table; write {table.header} on a line of its own, its keys below")
        return []
    return [_read_row(config, table, index, row, context) for index, row in enumerate(rows)]


def _read_row(config: Config, table: Table, index: int, written: Row | None, context: Context) -> Row:
    row: Row = {}
    given = written or {}
    known = {key.name for key in table.keys}
    for name in given:
        if name not in known:
            config.report(table.name, index, name, "unknown key" + _suggest(name, known))
    for key in table.keys:
        if key.name in given:
            config.written.add((table.name, index, key.name))
        value = given.get(key.name, key.default)
        if value is REQUIRED:
            if written is not None:
                config.report(table.name, index, key.name, f"missing; {_example(key)}")
        elif value is not UNSET:
            _read_value(config, table, index, key, value, row, context)
    return row


def _read_value(config: Config, table: Table, index: int, key: Key, value: Any, row: Row, context: Context) -> None:
    try:
        row[key.name] = key.kind.read(value, context)
    except ValueError as error:
        config.report(table.name, index, key.name, str(error))
    for warning in context.warnings:
        config.report(table.name, index, key.name, warning, warning=True)
    context.warnings.clear()


def _purpose(table: Table) -> str:
    return f"write {table.header}: {table.meaning[0].lower()}{table.meaning[1:].rstrip('.')}"


def _example(key: Key) -> str:
    shown = f"{key.name} = {key.kind.example}" if key.kind.example else f"{key.name}, {key.kind.name}"
    return f"write {shown} ({key.meaning.rstrip('.')})"


def _suggest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = get_close_matches(name.lower(), names, 1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(names)}"
