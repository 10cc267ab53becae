"""The call store on SQLite, for one machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.pool import NullPool

from voicecall.seam import Seam

from .sqlstore import JOURNAL_BYTES, SqlStore

__all__ = ["SqliteStore", "connected"]

_BUSY_SECONDS = 5


class SqliteStore(SqlStore):
    """Calls in ``<directory>/calls.db``; the rest as in :class:`.SqlStore`.

    ``fsync`` keeps commits through a loss of power; without it they survive a killed process only.
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
        super().__init__(
            str(self._path),
            directory,
            seam,
            journal_bytes=journal_bytes,
            pause_s=pause_s,
        )

    def _connected(self, *, writing: bool) -> AbstractContextManager[Connection]:
        return connected(self._path, writing=writing, fsync=self._fsync)


@contextmanager
def connected(path: Path, *, writing: bool, fsync: bool = True) -> Iterator[Connection]:
    """A connection for one thread. The writing one creates the file (mode 0600; SQLite gives its
    companions the same) and locks at the begin of a transaction; the other only reads."""
    if writing:
        # SQLite loses its locks when a process closes any descriptor of the file, so this one is
        # gone before the first connection.
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
