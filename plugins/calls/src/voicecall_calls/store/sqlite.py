"""The call store on SQLite, for one machine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection

from voicecall.seam import Seam

from .database import connected
from .sqlstore import JOURNAL_BYTES, SqlStore

__all__ = ["SqliteStore"]


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
