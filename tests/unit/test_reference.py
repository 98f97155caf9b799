"""docs/configuration.md says what the code does."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from sipnemo.app.reference import reference
from sipnemo.app.schema import REQUIRED, SCHEMAS, UNSET, Key, Schema
from sipnemo.app.values import Context

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_reference_is_up_to_date() -> None:
    assert DOCUMENT.read_text("utf-8") == reference(), "run: make docs"


def keys() -> list[tuple[str, Key]]:
    return [
        (f"{schema.command} {table.name}.{key.name}", key)
        for schema in SCHEMAS.values()
        for table in schema.tables
        for key in table.keys
    ]


@pytest.mark.parametrize(("name", "key"), keys(), ids=[name for name, _ in keys()])
def test_every_default_and_example_can_be_written_as_shown(name: str, key: Key) -> None:
    context = Context(Path("/"), read_files=False)
    if key.default is not REQUIRED and key.default is not UNSET:
        key.kind.read(tomllib.loads(f"x = {json.dumps(key.default)}")["x"], context)
    if key.kind.example:
        key.kind.read(tomllib.loads(f"x = {key.kind.example}")["x"], context)
    assert (key.default is UNSET) == bool(key.absent), name


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_no_table_or_key_stands_twice(schema: Schema) -> None:
    names = [table.name for table in schema.tables]
    assert len(set(names)) == len(names)
    for table in schema.tables:
        inner = [key.name for key in table.keys]
        assert len(set(inner)) == len(inner), table.name
