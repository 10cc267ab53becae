"""The sessions of the store's two threads: what they hold open and how they run jobs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from voicecall.errors import StoreError
from voicecall.model import CallRecord
from voicecall.store import TurnRow

from .database import reason
from .journal import Journal
from .receipts import Receipts
from .rows import UNREADABLE, Write
from .writing import store_batch

__all__ = ["ReaderSession", "Work", "WriterSession"]

Work = Callable[[Connection], Any]


class WriterSession:
    """``name`` is what errors call the database."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        journal: Journal,
        receipts: Receipts | None,
    ) -> None:
        self._name = name
        self._connection = connection
        self._journal = journal
        self._receipts = receipts
        self._stored: list[CallRecord | TurnRow] = []

    def run(self, jobs: Sequence[Write | Work]) -> list[Any]:
        outcomes: list[Any] = []
        for is_write, group in groupby(jobs, lambda job: isinstance(job, Write)):
            if is_write:
                outcomes += self._store([job for job in group if isinstance(job, Write)])
            else:
                outcomes += [self._work(job) for job in group if not isinstance(job, Write)]
        return outcomes

    def settled(self) -> None:
        changes, self._stored = self._stored, []
        self._journal.append(changes)

    def _store(self, writes: Sequence[Write]) -> list[StoreError | None]:
        outcomes = store_batch(self._connection, writes, name=self._name, receipts=self._receipts)
        for write, error in zip(writes, outcomes, strict=True):
            if error is None:
                self._stored += write.changes
        return outcomes

    def _work(self, work: Work) -> Any:
        try:
            with self._connection.begin():
                return work(self._connection)
        except StoreError as error:
            return error
        except SQLAlchemyError as error:
            return _failed(self._name, error)


class ReaderSession:
    """``name`` is what errors call the database."""

    def __init__(self, name: str, connection: Connection) -> None:
        self._name = name
        self._connection = connection

    def run(self, jobs: Sequence[Work]) -> list[Any]:
        """All jobs of a batch see the same state: the one after every acknowledged commit."""
        try:
            with self._connection.begin():
                return [self._answer(job) for job in jobs]
        except SQLAlchemyError:
            # One job failed, or the connection was lost: each gets its own transaction.
            return [self._alone(job) for job in jobs]

    def settled(self) -> None:
        """Nothing to do for a reader."""

    def _alone(self, query: Work) -> Any:
        try:
            with self._connection.begin():
                return self._answer(query)
        except SQLAlchemyError as error:
            return _failed(self._name, error)

    def _answer(self, query: Work) -> Any:
        try:
            return query(self._connection)
        except StoreError as error:
            return error
        except UNREADABLE as error:
            return _failed(self._name, error)


def _failed(name: str, error: Exception) -> StoreError:
    # Without the error as its cause, for the same reason as in _database_error.
    return StoreError(f"{name}: {reason(error)}")
