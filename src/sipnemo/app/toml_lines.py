"""Where a key stands in a TOML file. tomllib forgets the lines; this finds them again, well enough for a message."""

from __future__ import annotations

import re
from typing import Final

Place = tuple[str, int, str]
"Table, its number among tables of that name (from 0), key; an empty key is the table's header."

_BARE: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_NAME: Final = rf"{_BARE}(?:\s*\.\s*{_BARE})*"
_HEADER: Final = re.compile(rf"\s*(\[\[?)\s*({_NAME})\s*\]")
_KEY: Final = re.compile(rf"\s*({_NAME})\s*=")


def find_lines(text: str) -> dict[Place, int]:
    """The first line, counted from 1, of every table and key of the file."""
    found: dict[Place, int] = {}
    seen: dict[str, int] = {}
    table, index, prefix = "", 0, ""
    quotes = ""  # the kind of triple quotes that are open
    for line_number, line in enumerate(text.split("\n"), 1):
        inside = quotes
        for mark in ('"""', "'''"):
            if quotes in ("", mark) and line.count(mark) % 2:
                quotes = mark if not quotes else ""
        if inside:
            continue
        if header := _HEADER.match(line):
            table, _, prefix = _plain(header[2]).partition(".")
            if header[1] == "[[" and not prefix:
                seen[table] = seen.get(table, -1) + 1
            index = max(seen.get(table, 0), 0)
            found.setdefault((table, index, prefix), line_number)
        elif key := _KEY.match(line):
            if table:
                found.setdefault((table, index, prefix or _plain(key[1]).partition(".")[0]), line_number)
            else:  # "media.plane = …" or "media = {…}" before any header
                name, _, rest = _plain(key[1]).partition(".")
                found.setdefault((name, 0, ""), line_number)
                found.setdefault((name, 0, rest), line_number)
    return found


def find_items(text: str, begins: int) -> list[int]:
    """The lines of the tables in a list that begins on this line, one table a line."""
    found = []
    for line_number, line in enumerate(text.split("\n")[max(begins - 1, 0) :], max(begins, 1)):
        if line_number > begins and (_HEADER.match(line) or _KEY.match(line)):
            break
        if line.partition("#")[0].partition("[")[2 if line_number == begins else 0].strip().startswith("{"):
            found.append(line_number)
    return found


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
