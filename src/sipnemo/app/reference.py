"""docs/configuration.md, made from the schema: `python -m sipnemo.app.reference [FILE]`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from sipnemo.app.schema import REQUIRED, SCHEMAS, UNSET, Key, Schema, Table

_INTRODUCTION = """\
# Configuration

<!-- Made from src/sipnemo/app/schema.py by `make docs`; edit that file. -->

One TOML file for each server. `sipnemo check FILE` explains every mistake in it at once, with line and key, and says
what a correct file means. Unknown tables and keys are mistakes. Relative file names are relative to the file's own
directory. Spans of time are numbers of seconds; rates are texts such as `"2 Mbit/s"` or `"300 kbit/s"`, in bits.
Passwords are in files of their own: one line, readable to the service's user only.

`*` marks what must be written."""


def reference() -> str:
    """The whole document."""
    return "\n".join([_INTRODUCTION, *(line for schema in SCHEMAS.values() for line in _schema(schema))]) + "\n"


def _schema(schema: Schema) -> Iterator[str]:
    yield f"\n## {schema.command}.toml\n"
    yield f"{schema.meaning} Read by `sipnemo {schema.command} --config FILE`."
    for table in schema.tables:
        if table.available:
            yield from _table(table)
    later = [f"`{table.header}`" for table in schema.tables if not table.available]
    if later:
        yield f"\nNot available in this version: {', '.join(later)}."


def _table(table: Table) -> Iterator[str]:
    yield f"\n### {table.header}{' *' if table.required else ''}\n"
    yield table.meaning + (" As many as needed." if table.many else "")
    yield "\n| key | value | without it | meaning |\n|---|---|---|---|"
    for key in table.keys:
        name = f"`{key.name}`{' *' if key.default is REQUIRED else ''}"
        yield f"| {name} | {_cell(key.kind.name)} | {_default(key)} | {_cell(key.meaning)} |"


def _default(key: Key) -> str:
    if key.default is REQUIRED:
        return ""
    return _cell(key.absent) if key.default is UNSET else f"`{_cell(json.dumps(key.default))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the document to the file named, or to stdout."""
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(reference(), "utf-8")
    else:
        sys.stdout.write(reference())


if __name__ == "__main__":
    main()
