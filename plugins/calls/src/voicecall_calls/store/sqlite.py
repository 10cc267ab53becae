"""The call store: a writer thread that commits in groups, a reader thread beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from voicecall.errors import StoreError
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
from .database import connected, locked, naming, reason
from .journal import Journal
from .rows import UNREADABLE, Write, to_write
from .schema import prepare_schema
from .worker import Worker
from .writing import REPLIES_KEPT_MS, store_batch

__all__ = ["SqliteStore"]

T = TypeVar("T")
Work = Callable[[Connection], Any]

_BATCH = 256
_DAY_MS = 24 * 3600 * 1000


class SqliteStore(CallStore):
    """Calls in ``<directory>/calls.db``, readable lines of them in ``<directory>/calls.jsonl``.

    While its lifespan is entered it owns the directory (file ``lock``); entering raises
    :exc:`StoreError` where another process does, or the files cannot be used, and drops calls
    that are over beyond the newest ``keep_calls``. ``fsync`` keeps commits through a loss of
    power; without it they survive a killed process only. ``journal_bytes`` is the size at which
    the journal is rotated to ``calls.jsonl.1``.
    """

    def __init__(
        self,
        directory: Path,
        seam: Seam,
        *,
        keep_calls: int = 10_000,
        fsync: bool = True,
        journal_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._directory = directory
        self._path = directory / "calls.db"
        self._seam = seam
        self._keep_calls = keep_calls
        self._fsync = fsync
        self._journal_bytes = journal_bytes
        self._writer = self._new_writer()
        self._reader = self._new_reader()

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._directory)!r})"

    @property
    def outstanding(self) -> int:
        """How many answers of the two threads are still to come: zero means that time may be
        skipped. Read on the event loop; it falls when the answers are set there."""
        return self._writer.outstanding + self._reader.outstanding

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._writer, self._reader = self._new_writer(), self._new_reader()
        await self._writer.start()
        try:
            await self._reader.start()
            try:
                await self._prune(self._keep_calls, None)
                yield
            finally:
                await self._reader.stop()
        finally:
            # After the reader, so that the last connection to close can clear the log.
            await self._writer.stop()

    async def commit(self, commit: Commit) -> None:
        await self._writer.submit(to_write(commit, self._seam.now_ms()))

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
        """Drop calls that are over and either not among the newest ``keep_calls`` of these or
        ended more than ``keep_days`` ago; how many went. Their dedupe keys stay for a day."""
        before = now_ms - keep_days * _DAY_MS
        gone = await self._prune(keep_calls, before)
        await self._writer.submit(
            lambda c: pruning.prune_loose_rows(c, now=now_ms, before=before),
        )
        return gone

    async def _prune(self, keep_calls: int, before: int | None) -> int:
        gone = 0
        while step := await self._writer.submit(
            lambda c: pruning.prune_some(c, keep_calls=keep_calls, before=before)
        ):
            gone += step
            await anyio.lowlevel.checkpoint()
        return gone

    async def _read(self, query: Callable[[Connection], T]) -> T:
        return cast("T", await self._reader.submit(query))

    def _new_writer(self) -> Worker[Write | Work]:
        return Worker("voicecall-store-writer", self._writing, most=_BATCH)

    def _new_reader(self) -> Worker[Work]:
        return Worker("voicecall-store-reader", self._reading, most=_BATCH)

    @contextmanager
    def _writing(self) -> Iterator[_WriterSession]:
        with locked(self._directory):
            with (
                naming(self._path),
                connected(self._path, writing=True, fsync=self._fsync) as connection,
            ):
                prepare_schema(connection)
                journal = Journal(self._directory / "calls.jsonl", max_bytes=self._journal_bytes)
                try:
                    yield _WriterSession(self._path, connection, journal)
                finally:
                    journal.close()

    @contextmanager
    def _reading(self) -> Iterator[_ReaderSession]:
        with naming(self._path), connected(self._path, writing=False) as connection:
            yield _ReaderSession(self._path, connection)


class _WriterSession:
    def __init__(self, path: Path, connection: Connection, journal: Journal) -> None:
        self._path = path
        self._connection = connection
        self._journal = journal
        self._stored: list[CallRecord] = []

    def run(self, jobs: Sequence[Write | Work]) -> list[Any]:
        outcomes: list[Any] = []
        for is_write, group in groupby(jobs, lambda job: isinstance(job, Write)):
            if is_write:
                outcomes += self._store([job for job in group if isinstance(job, Write)])
            else:
                outcomes += [self._work(job) for job in group if not isinstance(job, Write)]
        return outcomes

    def settled(self) -> None:
        records, self._stored = self._stored, []
        self._journal.append(records)

    def _store(self, writes: Sequence[Write]) -> list[StoreError | None]:
        outcomes = store_batch(self._connection, writes)
        self._stored += [
            write.record
            for write, error in zip(writes, outcomes, strict=True)
            if error is None and write.record
        ]
        return outcomes

    def _work(self, work: Work) -> Any:
        try:
            with self._connection.begin():
                return work(self._connection)
        except SQLAlchemyError as error:
            return _failed(self._path, error)


class _ReaderSession:
    def __init__(self, path: Path, connection: Connection) -> None:
        self._path = path
        self._connection = connection

    def run(self, jobs: Sequence[Work]) -> list[Any]:
        """All jobs of a batch see one state: that after every commit acknowledged before."""
        try:
            with self._connection.begin():
                return [self._answer(job) for job in jobs]
        except SQLAlchemyError as error:
            return [_failed(self._path, error) for _ in jobs]

    def settled(self) -> None:
        """Nothing is left to do."""

    def _answer(self, query: Work) -> Any:
        try:
            return query(self._connection)
        except StoreError as error:
            return error
        except (SQLAlchemyError, *UNREADABLE) as error:
            return _failed(self._path, error)


def _failed(path: Path, error: Exception) -> StoreError:
    made = StoreError(f"{path}: {reason(error)}")
    made.__cause__ = error
    return made
