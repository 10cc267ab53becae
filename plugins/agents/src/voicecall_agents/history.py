"""The conversation history of agents: turns of messages by session, in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from voicecall.errors import StoreError
from voicecall.seam import Seam

__all__ = ["HistoryTurn", "SqliteHistory"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    session TEXT NOT NULL,
    turn_number INTEGER NOT NULL,
    position INTEGER NOT NULL,
    turn TEXT NOT NULL,
    at INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (session, turn_number, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS messages_at ON messages (at)
"""
_BUSY_S = 5.0
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_HOUR_MS = 3600 * 1000
_DAY_MS = 24 * _HOUR_MS

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class HistoryTurn:
    """One turn; ``messages`` holds a JSON document per message, in the format of the backend that
    wrote them."""

    turn_id: str
    messages: tuple[str, ...]


class SqliteHistory:
    """Histories by session key. :meth:`open` creates the file if there is none and makes it
    readable by its owner only. Methods raise :exc:`voicecall.errors.StoreError`.

    Turns older than ``keep_days`` are not loaded. They are deleted only by the first :meth:`put` an
    hour later, so that a clock that is briefly wrong, as at the start of a machine, deletes
    nothing.
    """

    def __init__(self, path: Path, seam: Seam, *, keep_days: int = 365) -> None:
        self._path = path
        self._seam = seam
        self._keep_ms = keep_days * _DAY_MS
        self._connection: sqlite3.Connection | None = None
        self._ahead: int | None = None
        """By how much the wall clock was ahead of the monotonic one at the last comparison."""
        self._compared = 0
        self._one_at_a_time = anyio.CapacityLimiter(1)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the file. Use the other methods only inside of this context."""
        self._connection = await anyio.to_thread.run_sync(self._connect)
        try:
            self._old_before()
            yield
        finally:
            connection, self._connection = self._connection, None
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(connection.close, limiter=self._one_at_a_time)

    def _connect(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
            # A restored copy may be readable by others. SQLite gives its WAL files the same mode.
            self._path.chmod(0o600)
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.executescript(_SCHEMA)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            text = f"{self._path} cannot be opened: {error}"
            # The lowest eight bits of an extended error code are the primary one.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                text += "; restore a backup, or delete it: agents then forget their callers"
            raise StoreError(text) from error
        return connection

    async def _run(self, work: Callable[[sqlite3.Connection], R]) -> R:
        connection = self._connection
        if connection is None:
            raise StoreError("the history is not open")

        def transaction() -> R:
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    done = work(connection)
                    connection.execute("COMMIT")
                except BaseException:
                    connection.rollback()
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {error}") from error
            return done

        return await anyio.to_thread.run_sync(transaction, limiter=self._one_at_a_time)

    async def load(self, session_key: str, turns: int) -> list[HistoryTurn]:
        """The last ``turns`` turns, oldest first."""
        since = self._seam.now_ms() - self._keep_ms
        return await self._run(lambda connection: _load(connection, session_key, turns, since))

    async def put(self, session_key: str, turn: HistoryTurn, keep_turns: int) -> None:
        """Store a turn, replacing one with the same id, and delete all but the session's last
        ``keep_turns``."""
        now, before = self._seam.now_ms(), self._old_before()

        def work(connection: sqlite3.Connection) -> None:
            _put(connection, session_key, turn, keep_turns, now)
            if before is not None:
                _expire(connection, before)

        await self._run(work)

    def _old_before(self) -> int | None:
        """Once an hour, the time before which turns are too old, both by the current clock and by
        the clock of an hour ago; otherwise None."""
        wall, steady = self._seam.now_ms(), round(self._seam.monotonic() * 1000)
        ahead, since = self._ahead, steady - self._compared
        if ahead is not None and since < _HOUR_MS:
            return None
        self._ahead, self._compared = wall - steady, steady
        return None if ahead is None else min(wall, ahead + steady) - self._keep_ms

    async def forget(self, session_key: str) -> None:
        """Delete a session."""
        await self._run(lambda connection: _drop(connection, session_key, None))


def _load(
    connection: sqlite3.Connection, session: str, turns: int, since: int
) -> list[HistoryTurn]:
    rows = connection.execute(
        "SELECT turn, message FROM messages WHERE session = :session AND turn_number > ("
        "  SELECT COALESCE(MAX(turn_number), 0) FROM messages WHERE session = :session"
        ") - :turns AND at >= :since ORDER BY turn_number, position",
        {"session": session, "turns": turns, "since": since},
    )
    found: dict[str, list[str]] = {}
    for turn, message in rows:
        found.setdefault(turn, []).append(message)
    return [HistoryTurn(turn, tuple(messages)) for turn, messages in found.items()]


def _put(
    connection: sqlite3.Connection, session: str, turn: HistoryTurn, keep_turns: int, at: int
) -> None:
    (last,) = connection.execute(
        "SELECT COALESCE(MAX(turn_number), 0) FROM messages WHERE session = ?", (session,)
    ).fetchone()
    known = connection.execute(
        "SELECT turn_number FROM messages WHERE session = ? AND turn = ? LIMIT 1",
        (session, turn.turn_id),
    ).fetchone()
    number = known[0] if known else last + 1
    connection.execute(
        "DELETE FROM messages WHERE session = ? AND turn_number = ?", (session, number)
    )
    connection.executemany(
        "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)",
        [
            (session, number, position, turn.turn_id, at, message)
            for position, message in enumerate(turn.messages)
        ],
    )
    _drop(connection, session, max(last, number) - keep_turns)


def _drop(connection: sqlite3.Connection, session: str, up_to: int | None) -> None:
    connection.execute(
        "DELETE FROM messages"
        " WHERE session = :session AND (:up_to IS NULL OR turn_number <= :up_to)",
        {"session": session, "up_to": up_to},
    )


def _expire(connection: sqlite3.Connection, before: int) -> None:
    connection.execute("DELETE FROM messages WHERE at < ?", (before,))
