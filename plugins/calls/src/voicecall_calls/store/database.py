"""Owning a store directory, and the messages of database errors."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from voicecall.errors import StoreError

__all__ = ["StoreTrouble", "locked", "naming", "reason"]

_OWNED = "; it must belong to the gateway's user, and commands must be run as that user"
_DAMAGED = "; use a backup or another store"
_HINTS = {
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CANTOPEN: (
        "; the gateway's user must have access to it and to the files next to it (-wal, -shm), and"
        " must be able to open more files"
    ),
}
"""What to do about an SQLite error, by its primary result code."""


class StoreTrouble(StoreError):
    """Nothing can be stored at the moment, whatever it is."""


@contextmanager
def naming(name: object) -> Iterator[None]:
    """Turn errors of the file system and the database into :exc:`StoreError` with the store's
    name, such as its path."""
    try:
        yield
    except OSError as error:
        hint = _OWNED if isinstance(error, PermissionError) else ""
        raise StoreError(f"{error.filename or name}: {error.strerror or error}{hint}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"{name}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The message of a database error, without the parts that quote phone numbers and texts:
    SQLAlchemy's own text (the parameters) and a server's details (the row)."""
    if isinstance(error, SQLAlchemyError):
        original = getattr(error, "orig", None) or error.__class__.__name__
        diagnosis = getattr(original, "diag", None)
        text = getattr(diagnosis, "message_primary", None) or str(original)
        # PostgreSQL's may have several lines.
        text = " ".join(text.split())
        # The low eight bits of an SQLite result code are the primary code.
        return text + _HINTS.get(getattr(original, "sqlite_errorcode", 0) & 0xFF, "")
    return str(error)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Own a store directory, which is created (mode 0700) if it does not exist. Raises
    :exc:`StoreError` if another process owns it or it cannot be written."""
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
