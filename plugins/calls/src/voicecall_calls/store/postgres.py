"""The call store in a PostgreSQL database, for a gateway whose machine may be lost."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection

from voicecall.seam import Seam

from .receipts import Receipts
from .server import ServerAddress
from .sqlstore import JOURNAL_BYTES, SqlStore

__all__ = ["PostgresStore"]


class PostgresStore(SqlStore):
    """Calls in the database at ``url``; otherwise like :class:`.SqlStore`.

    One gateway at a time: the database's advisory lock keeps out a second one, which waits up
    to ``lock_seconds`` for it. Raises :exc:`voicecall.errors.ConfigError` for an invalid URL.
    """

    def __init__(self, url: str, directory: Path, seam: Seam, *, lock_seconds: float = 5.0) -> None:
        self._address = ServerAddress.parse(url)
        self._lock_seconds = lock_seconds
        super().__init__(self._address.name, directory, seam, journal_bytes=JOURNAL_BYTES)

    def _connected(self, *, writing: bool) -> AbstractContextManager[Connection]:
        return self._address.connected(writing=writing, lock_seconds=self._lock_seconds)

    def _receipts(self) -> Receipts:
        return Receipts(self._seam.new_id())
