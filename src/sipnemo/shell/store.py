"""Rows that outlive the process: SQLite with a writer thread of its own, or memory.

`Stored` comes only when the rows are on the disk (synchronous=FULL). Everything that waits while the disk works goes
into the next transaction together, so the disk's speed bounds the delay and not the number of rows a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sipnemo.roles.node import Input, Store, Stored

logger = logging.getLogger("sipnemo.shell")

BATCH = 1000
"Most Store actions in one transaction."

_SCHEMA = (
    'CREATE TABLE IF NOT EXISTS "rows" '
    '("table" TEXT, "key" TEXT, "value" TEXT NOT NULL, PRIMARY KEY ("table", "key")) WITHOUT ROWID'
)
_PUT = 'INSERT INTO "rows" VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "value" = excluded."value"'
_DELETE = 'DELETE FROM "rows" WHERE "table" = ? AND "key" = ?'


class StoreError(Exception):
    """The store cannot be used; the text names the file and what to do."""


class BusyStoreError(StoreError):
    """Another process uses it."""


class DamagedStoreError(StoreError):
    """The file is not what was written."""


class RowStore(Protocol):
    """What the shell needs of a store."""

    def load(self) -> Mapping[str, Mapping[str, Any]]:
        """All rows: table → key → value."""
        ...

    def store(self, action: Store) -> None:
        """Make rows durable; answered by `Stored`, never before this returns."""
        ...

    def start(self, feed: Callable[[Input], None]) -> None:
        """Take `Store` actions from now on."""
        ...

    async def close(self) -> None:
        """Make durable what is waiting, and end."""
        ...


def open_store(spec: str) -> RowStore:
    """The store of a specification: `memory` (or empty), `sqlite:PATH` or `state:PATH`; raises StoreError."""
    kind, _, path = spec.partition(":")
    if kind == "state" and path:
        return _open_state(Path(path))
    if spec in ("", "memory"):
        return MemoryStore()
    if kind == "sqlite" and path:
        return SqliteStore(path)
    raise StoreError(f"store = {spec!r} is not known: use sqlite:/path/to/file.db or memory")


def _open_state(path: Path) -> RowStore:
    """A file that helps after a restart, and without which the server works all the same."""
    try:
        return _checked(path)
    except BusyStoreError:
        raise  # two servers with one state would be one too many
    except StoreError as error:
        failure = error
    if isinstance(failure, DamagedStoreError) and _put_aside(path, failure):
        return _checked(path)
    logger.error("%s: nothing will be found again after a restart", failure)
    return MemoryStore()


def _checked(path: Path) -> SqliteStore:
    """The store of a file that can be read to its end."""
    store = SqliteStore(path)
    try:
        store.load()
    except StoreError:
        store.abandon()
        raise
    return store


def _put_aside(path: Path, error: StoreError) -> bool:
    """Move a damaged file away; whether that could be done."""
    try:
        path.replace(f"{path}.damaged")
        for rest in ("-wal", "-shm"):
            Path(f"{path}{rest}").unlink(missing_ok=True)
    except OSError as failure:
        logger.error("%s; it cannot be moved away (%s), so nothing will be found again after a restart", error, failure)
        return False
    logger.error(
        "%s is damaged (%s): kept as %s.damaged, started empty; phones register again", path, error.__cause__, path
    )
    return True


class MemoryStore:
    """Keeps rows as long as the process lives."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}
        self._feed: Callable[[Input], None] = lambda _input: None

    def load(self) -> Mapping[str, Mapping[str, Any]]:
        """All rows: table → key → value."""
        return {table: dict(rows) for table, rows in self.tables.items()}

    def start(self, feed: Callable[[Input], None]) -> None:
        """Take `Store` actions from now on."""
        self._feed = feed

    def store(self, action: Store) -> None:
        """Keep rows."""
        rows = self.tables.setdefault(action.table, {})
        for key, value in action.rows:
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = json.loads(json.dumps(value))
        asyncio.get_running_loop().call_soon(self._feed, Stored(action.ticket))

    async def close(self) -> None:
        """Nothing to do."""


class SqliteStore:
    """One SQLite file, used by this process alone."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._feed: Callable[[Input], None] = lambda _input: None
        self._waiting: queue.SimpleQueue[Store | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = self._take_lock()
        try:
            self._database = self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def load(self) -> Mapping[str, Mapping[str, Any]]:
        """All rows: table → key → value; raises StoreError when the file is damaged."""
        tables: dict[str, dict[str, Any]] = {}
        try:
            for table, key, value in self._database.execute('SELECT "table", "key", "value" FROM "rows"'):
                tables.setdefault(table, {})[key] = json.loads(value)
        except (sqlite3.Error, ValueError) as error:
            raise self._unusable(error) from error
        return tables

    def start(self, feed: Callable[[Input], None]) -> None:
        """Take `Store` actions from now on; answers come in this event loop."""
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_all, name="store", daemon=True)
        self._thread.start()

    def store(self, action: Store) -> None:
        """Have rows written."""
        self._waiting.put(action)

    async def close(self) -> None:
        """Make durable what is waiting, and close the file."""
        if self._thread is not None:
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self._database.close()
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def abandon(self) -> None:
        """Close the file before anything was written."""
        self._database.close()
        os.close(self._lock)

    # ------------------------------------------------------------------------------------------ in the writer thread

    def _write_all(self) -> None:
        ended = False
        while not ended:
            batch: list[Store] = []
            action = self._waiting.get()
            while action is not None:
                batch.append(action)
                if len(batch) >= BATCH:
                    break
                try:
                    action = self._waiting.get_nowait()
                except queue.Empty:
                    break
            ended = action is None
            if batch:
                self._write(batch)

    def _write(self, batch: Sequence[Store]) -> None:
        error = self._transaction(batch)
        if error and len(batch) > 1:
            # One bad row must not take the others with it.
            answers = [Stored(action.ticket, self._transaction([action])) for action in batch]
        else:
            answers = [Stored(action.ticket, error) for action in batch]
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._answer, answers)

    def _transaction(self, batch: Sequence[Store]) -> str:
        """Write in one transaction; the reason why not, if not."""
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            for action in batch:
                for key, value in action.rows:
                    if value is None:
                        database.execute(_DELETE, (action.table, key))
                    else:
                        database.execute(_PUT, (action.table, key, json.dumps(value, separators=(",", ":"))))
            database.execute("COMMIT")
        except (sqlite3.Error, TypeError, ValueError) as error:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            logger.error("%s was not written: %s", self.path, error)
            return str(error) or type(error).__name__
        return ""

    def _answer(self, answers: Sequence[Stored]) -> None:
        for answer in answers:
            self._feed(answer)

    # ------------------------------------------------------------------------------------------------------- opening

    def _take_lock(self) -> int:
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            lock = os.open(f"{self.path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"store {self.path} cannot be opened: {error.strerror} ({error.filename})") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise BusyStoreError(
                f"store {self.path} is in use by another process: stop it, or set another store"
            ) from error
        return lock

    def _open(self) -> sqlite3.Connection:
        database: sqlite3.Connection | None = None
        try:
            database = sqlite3.connect(self.path, timeout=2.0, isolation_level=None, check_same_thread=False)
            os.chmod(self.path, 0o600)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            database.execute(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            if database is not None:
                database.close()
            raise self._unusable(error) from error
        return database

    def _unusable(self, error: Exception) -> StoreError:
        if isinstance(error, sqlite3.OperationalError | OSError):
            return StoreError(f"store {self.path} cannot be used: {error}")
        return DamagedStoreError(
            f"store {self.path} is damaged ({error}): put a backup in its place, or move it away to start empty "
            "(gateways and phones then register again)"
        )
