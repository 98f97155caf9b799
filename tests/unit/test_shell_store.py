"""Rows that outlive the process, also when it is killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sipnemo.roles.node import Input, Store, Stored
from sipnemo.shell.store import MemoryStore, RowStore, SqliteStore, StoreError, open_store


def write(store: RowStore, *actions: Store) -> list[Input]:
    """Have these written by an event loop; what the node would hear."""
    seen: list[Input] = []

    async def story() -> None:
        store.start(seen.append)
        for action in actions:
            store.store(action)
        assert seen == []
        async with asyncio.timeout(10):
            while len(seen) < len(actions):
                await asyncio.sleep(0.001)
        await store.close()

    asyncio.run(story())
    return seen


def load(path: Path) -> Any:
    store = SqliteStore(path)
    tables = store.load()
    asyncio.run(store.close())
    return tables


def test_rows_come_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "home.db"
    seen = write(
        SqliteStore(path),
        Store(1, "bindings", (("sip:a@b", {"q": 1.0, "path": ["x", None]}), ("sip:c@d", "text"))),
        Store(2, "bindings", (("sip:c@d", None), ("never", None))),
        Store(3, "uris", (("\xff'\"", 1),)),
    )
    assert seen == [Stored(1), Stored(2), Stored(3)]
    assert load(path) == {"bindings": {"sip:a@b": {"q": 1.0, "path": ["x", None]}}, "uris": {"\xff'\"": 1}}
    assert path.stat().st_mode & 0o777 == 0o600


def test_memory_behaves_the_same() -> None:
    store = open_store("memory")
    assert isinstance(store, MemoryStore)
    assert write(store, Store(1, "t", (("a", [1]), ("b", 2))), Store(2, "t", (("a", None), ("z", None)))) == [
        Stored(1),
        Stored(2),
    ]
    assert store.load() == {"t": {"b": 2}}


def test_a_row_that_cannot_be_written_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    seen = write(
        SqliteStore(tmp_path / "x.db"),
        Store(1, "t", (("a", 1),)),
        Store(2, "t", (("b", object()),)),
        Store(3, "t", (("c", 3),)),
    )
    assert [(answer.ticket, bool(answer.error)) for answer in seen if isinstance(answer, Stored)] == [
        (1, False),
        (2, True),
        (3, False),
    ]
    assert load(tmp_path / "x.db") == {"t": {"a": 1, "c": 3}}


KILLED = """
import asyncio, sys
from sipnemo.roles.node import Store
from sipnemo.shell.store import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    def stored(answer):
        print(answer.ticket, flush=True)
        store.store(Store(answer.ticket + 1, "t", ((str(answer.ticket + 1), 1),)))
    store.start(stored)
    for number in range(1, 5):
        store.store(Store(number * 1000000, "t", ((str(number * 1000000), 1),)))
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_what_was_confirmed_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "home.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        confirmed = [process.stdout.readline().strip() for _turn in range(50)]
        os.kill(process.pid, signal.SIGKILL)
        confirmed += process.stdout.read().split()
    assert set(confirmed) <= set(load(path)["t"])


def test_a_store_in_use_is_refused(tmp_path: Path) -> None:
    first = SqliteStore(tmp_path / "x.db")
    with pytest.raises(StoreError, match="is in use by another process"):
        SqliteStore(tmp_path / "x.db")
    asyncio.run(first.close())
    assert load(tmp_path / "x.db") == {}


def damaged(path: Path, damage: str) -> None:
    """A file with rows in it, and then something happens to it."""
    write(SqliteStore(path), *(Store(n, "t", tuple((f"{n}-{m}", "x" * 500) for m in range(20))) for n in range(20)))
    if damage == "json":
        database = sqlite3.connect(path)
        database.execute('UPDATE "rows" SET "value" = \'{\'')
        database.commit()
        database.close()
    else:
        data = bytearray(path.read_bytes())
        start = 0 if damage == "header" else 4096
        data[start : start + 6000] = b"\xaa" * 6000
        path.write_bytes(data)


@pytest.mark.parametrize("damage", ["header", "page", "json"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "home.db"
    damaged(path, damage)
    with pytest.raises(StoreError, match=f"store {re.escape(str(path))} is damaged"):
        load(path)


@pytest.mark.req("R16")
@pytest.mark.parametrize("damage", ["header", "page", "json"])
def test_a_gateway_starts_empty_beside_a_damaged_file(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nms.db"
    damaged(path, damage)
    was = path.read_bytes()
    store = open_store(f"state:{path}")
    assert store.load() == {}
    write(store, Store(1, "phones", (("a", 1),)))
    assert load(path) == {"phones": {"a": 1}}
    assert (tmp_path / "nms.db.damaged").read_bytes() == was
    (record,) = caplog.records
    assert "nms.db is damaged" in record.getMessage()
    assert "phones register again" in record.getMessage()


@pytest.mark.req("R16")
def test_a_gateway_that_cannot_keep_its_state_works_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store = open_store(f"state:{tmp_path}/file/nms.db")
    assert isinstance(store, MemoryStore)
    assert "nothing will be found again after a restart" in caplog.text


def test_two_gateways_do_not_share_a_state(tmp_path: Path) -> None:
    first = open_store(f"state:{tmp_path}/nms.db")
    with pytest.raises(StoreError, match="is in use by another process"):
        open_store(f"state:{tmp_path}/nms.db")
    asyncio.run(first.close())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path / "file" / "home.db")


@pytest.mark.parametrize("spec", ["redis://x", "sqlite", "sqlite:", "nonsense"])
def test_an_unknown_store_is_refused(spec: str) -> None:
    with pytest.raises(StoreError, match="use sqlite:/path"):
        open_store(spec)
