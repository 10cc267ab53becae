"""Owning a store directory, connections to SQLite, and the words of database errors."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from voicecall.errors import StoreError

__all__ = ["StoreTrouble", "connected", "locked", "naming", "reason"]

_BUSY_SECONDS = 5
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class StoreTrouble(StoreError):
    """Nothing can be stored just now, whatever it is."""


@contextmanager
def naming(name: object) -> Iterator[None]:
    """Turn errors of the file system and the database into :exc:`StoreError` with the name of
    the store, such as its path."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or name}: {error.strerror or error}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"{name}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What a database error says, without what quotes people's numbers and words: SQLAlchemy's own
    text (the parameters) and a server's details (the row)."""
    if isinstance(error, SQLAlchemyError):
        original = getattr(error, "orig", None) or error.__class__.__name__
        diagnosis = getattr(original, "diag", None)
        text = getattr(diagnosis, "message_primary", None) or str(original)
        # Of SQLite's codes the last eight bits tell the kind.
        damaged = getattr(original, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
        return f"{text}; use a backup or another store" if damaged else text
    return str(error)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Own a store directory, which is made (mode 0700) where there is none. Raises
    :exc:`StoreError` where another process owns it or it cannot be written."""
    path = directory / "lock"
    with naming(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with naming(path):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                raise StoreError(f"another gateway (pid {owner}) uses {directory}") from error
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


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
