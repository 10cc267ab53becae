"""The call store on SQLite, for one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.pool import NullPool

from voicecall.seam import Seam

from .sqlstore import JOURNAL_BYTES, SqlStore

__all__ = ["SqliteStore", "connected"]

_BUSY_SECONDS = 5


class SqliteStore(SqlStore):
    """Calls in ``<directory>/calls.db``; otherwise like :class:`.SqlStore`.

    With ``fsync``, commits survive a loss of power; without it, only the death of the process.
    """

    def __init__(
        self,
        directory: Path,
        seam: Seam,
        *,
        fsync: bool = True,
        journal_bytes: int = JOURNAL_BYTES,
        pause_s: float = 0.0,
    ) -> None:
        self._path = directory / "calls.db"
        self._fsync = fsync
        self._file: os.stat_result | None = None
        """The database file that is open."""
        super().__init__(
            str(self._path),
            directory,
            seam,
            journal_bytes=journal_bytes,
            pause_s=pause_s,
        )

    def problems(self) -> Sequence[str]:
        return [*super().problems(), *self._gone()]

    def _gone(self) -> Iterator[str]:
        """Report a database file that was moved or deleted: SQLite silently goes on using it."""
        if self._file is None:
            return
        try:
            there = os.path.samestat(os.stat(self._path), self._file)
        except FileNotFoundError:
            there = False
        except OSError:
            return
        if not there:
            yield (
                f"{self._path} was moved, deleted or replaced: calls still go into the old file;"
                " stop the gateway, put the right file in place and start it again"
            )

    @contextmanager
    def _connected(self, *, writing: bool) -> Iterator[Connection]:
        with connected(self._path, writing=writing, fsync=self._fsync) as connection:
            if not writing:
                yield connection
                return
            self._file = os.stat(self._path)
            try:
                yield connection
            finally:
                self._file = None


@contextmanager
def connected(path: Path, *, writing: bool, fsync: bool = True) -> Iterator[Connection]:
    """A connection for one thread. The writing one creates the file (mode 0600, which SQLite also
    gives to the -wal and -shm files) and locks it when a transaction begins; the other only reads.
    """
    if writing:
        # SQLite loses its locks when the process closes any descriptor of the file, so this one is
        # closed before the first connection is opened.
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None},
    )

    def set_up(dbapi_connection: Any, _record: Any) -> None:
        cursor = dbapi_connection.cursor()
        if writing:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        else:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
