"""The call store over SQL: a writer thread that commits in groups, and a reader thread."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import anyio
from sqlalchemy import Connection

from voicecall.model import CallRecord
from voicecall.seam import Seam
from voicecall.store import (
    Approval,
    CallStore,
    Commit,
    DialReservation,
    RecordedReply,
    StoredEvent,
    TurnRow,
)

from . import pruning, reading
from .database import StoreTrouble, locked, naming
from .journal import Journal
from .receipts import Receipts
from .rows import Write, to_write
from .schema import prepare_schema
from .sessions import ReaderSession, Work, WriterSession
from .worker import Worker
from .writing import REPLIES_KEPT_MS

__all__ = ["JOURNAL_BYTES", "TOLD_S", "SqlStore"]

T = TypeVar("T")

_log = logging.getLogger("voicecall.store")

JOURNAL_BYTES = 16 * 1024 * 1024

TOLD_S = 60.0
"""How long a failed commit is reported as a problem if no other is attempted."""

_BATCH = 256
_DAY_MS = 24 * 3600 * 1000


class SqlStore(CallStore):
    """Calls in a database, and as readable lines in ``<directory>/calls.jsonl``.

    During its lifespan it owns the directory (file ``lock``) and the database; entering raises
    :exc:`StoreError` if another process does, or they cannot be used. ``journal_bytes`` is the size
    at which the journal is rotated to ``calls.jsonl.1``. Groups of commits are at least ``pause_s``
    seconds apart. ``name`` is what errors call the database.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        seam: Seam,
        *,
        journal_bytes: int,
        pause_s: float = 0.0,
    ) -> None:
        self._name = name
        self._directory = directory
        self._seam = seam
        self._journal_bytes = journal_bytes
        self._pause_s = pause_s
        self._trouble: str | None = None
        self._trouble_at = 0.0
        self._writer = self._new_writer()
        self._reader = self._new_reader()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    @abstractmethod
    def _connected(self, *, writing: bool) -> AbstractContextManager[Connection]:
        """A connection for one thread. The writing one owns the database. Within a transaction
        both see one state, which includes everything committed before it began."""

    def _receipts(self) -> Receipts | None:
        """Receipts, for a database whose connection can be lost."""
        return None

    @property
    def outstanding(self) -> int:
        """Number of requests to the two threads that are not answered yet; tests skip time only if
        it is zero. Read it on the event loop; it decreases when results are set there."""
        return self._writer.outstanding + self._reader.outstanding

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._writer, self._reader = self._new_writer(), self._new_reader()
        await self._writer.start()
        try:
            await self._reader.start()
            try:
                yield
            finally:
                await self._reader.stop()
        finally:
            # After the reader: the last connection to close must be able to clear SQLite's WAL.
            await self._writer.stop()

    async def commit(self, commit: Commit) -> None:
        try:
            await self._writer.submit(to_write(commit, self._seam.now_ms()))
        except StoreTrouble as error:
            if self._trouble is None:
                _log.error("calls cannot be stored: %s", error)
            self._trouble, self._trouble_at = str(error), self._seam.monotonic()
            raise
        if self._trouble is not None:
            _log.info("calls are stored again")
            self._trouble = None

    def problems(self) -> Sequence[str]:
        if self._trouble is None or self._seam.monotonic() - self._trouble_at > TOLD_S:
            return ()
        return [f"calls cannot be stored: {self._trouble}"]

    async def load(self, call_id: str) -> CallRecord | None:
        return await self._read(lambda c: reading.load_call(c, call_id))

    async def find(self, provider: str, provider_call_id: str) -> CallRecord | None:
        return await self._read(lambda c: reading.find_call(c, provider, provider_call_id))

    async def live(self) -> Sequence[CallRecord]:
        return await self._read(reading.live_calls)

    async def recent(self, limit: int) -> Sequence[CallRecord]:
        return await self._read(lambda c: reading.recent_calls(c, limit))

    async def is_processed(self, key: str) -> bool:
        return await self._read(lambda c: reading.is_processed(c, key))

    async def reply(self, key: str) -> RecordedReply | None:
        after = self._seam.now_ms() - REPLIES_KEPT_MS
        return await self._read(lambda c: reading.reply_of(c, key, after))

    async def reservation(self, key: str) -> DialReservation | None:
        return await self._read(lambda c: reading.reservation_of(c, key))

    async def events(self, call_id: str) -> Sequence[StoredEvent]:
        return await self._read(lambda c: reading.events_of(c, call_id))

    async def turns(self, *, call_id: str | None = None, limit: int = 200) -> Sequence[TurnRow]:
        return await self._read(lambda c: reading.turns_of(c, call_id, limit))

    async def approvals(self, number: str | None = None) -> Sequence[Approval]:
        return await self._read(lambda c: reading.approvals_of(c, number))

    async def prune(self, now_ms: int, *, keep_calls: int, keep_days: int) -> int:
        """Delete finished calls that are not among the newest ``keep_calls`` finished ones, or
        ended more than ``keep_days`` ago. Returns how many were deleted. Refused calls are counted
        separately. Deduplication keys stay for a day; expired pairing codes are deleted too."""
        before = now_ms - keep_days * _DAY_MS
        gone = 0
        while step := await self._writer.submit(
            lambda c: pruning.prune_some(c, keep_calls=keep_calls, before=before)
        ):
            gone += step
            await anyio.lowlevel.checkpoint()
        place: pruning.Place | None = (0, None)
        while place is not None:
            look = partial(pruning.prune_loose_some, place=place, now=now_ms, before=before)
            place = await self._writer.submit(look)
            await anyio.lowlevel.checkpoint()
        await self._writer.submit(partial(pruning.drop_expired_codes, now=now_ms))
        return gone

    async def _read(self, query: Callable[[Connection], T]) -> T:
        return cast("T", await self._reader.submit(query))

    def _new_writer(self) -> Worker[Write | Work]:
        return Worker("voicecall-store-writer", self._writing, most=_BATCH, pause_s=self._pause_s)

    def _new_reader(self) -> Worker[Work]:
        return Worker("voicecall-store-reader", self._reading, most=_BATCH)

    @contextmanager
    def _writing(self) -> Iterator[WriterSession]:
        with locked(self._directory):
            with naming(self._name), self._connected(writing=True) as connection:
                prepare_schema(connection, name=self._name)
                receipts = self._receipts()
                if receipts is not None:
                    receipts.prepare(connection)
                journal = Journal(self._directory / "calls.jsonl", max_bytes=self._journal_bytes)
                try:
                    yield WriterSession(self._name, connection, journal, receipts)
                finally:
                    journal.close()

    @contextmanager
    def _reading(self) -> Iterator[ReaderSession]:
        with naming(self._name), self._connected(writing=False) as connection:
            yield ReaderSession(self._name, connection)
