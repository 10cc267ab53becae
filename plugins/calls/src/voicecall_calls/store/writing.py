"""Storing a batch of commits in the writer thread: one transaction, one statement per table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table, bindparam, case, delete, insert, null
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)

from voicecall.errors import DuplicateKey, StoreError

from . import tables
from .database import StoreTrouble, reason
from .receipts import Receipts
from .rows import Params, Write
from .statements import ForRows

__all__ = ["REPLIES_KEPT_MS", "store_batch"]

REPLIES_KEPT_MS = 24 * 3600 * 1000

_BAD_ROW = (
    IntegrityError,
    DataError,
    InterfaceError,
    ProgrammingError,
    ValueError,
    OverflowError,
)


class _Puts:
    """Statements that insert or replace a row, in the dialect of one database."""

    def __init__(self, dialect: str) -> None:
        # Those of SQLite and PostgreSQL have the same methods but no common base class.
        self._insert: Any = import_module(f"sqlalchemy.dialects.{dialect}").insert
        self.call = self._put(tables.calls, "call_id")
        self.deadline = self._put(tables.deadlines, "call_id")
        self.entry = self._put(tables.transcript, "call_id", "idx")
        self.turn = self._put(tables.turns, "call_id", "turn_id")
        self.approval = self._put(tables.approvals, "number")
        self.alias = self._put_alias()

    def _put(self, table: Table, *key: str) -> ForRows:
        row = self._insert(table)
        return ForRows(
            row.on_conflict_do_update(
                index_elements=key,
                set_={c.name: row.excluded[c.name] for c in table.c if not c.primary_key},
            )
        )

    def _put_alias(self) -> ForRows:
        """If the alias belongs to another call, the statement sets NULL, which the column refuses:
        it checks and stores at once."""
        row = self._insert(tables.call_aliases)
        same = tables.call_aliases.c.call_id == row.excluded.call_id
        return ForRows(
            row.on_conflict_do_update(
                index_elements=["provider", "provider_call_id"],
                set_={"call_id": case((same, row.excluded.call_id), else_=null())},
            )
        )


_puts = cache(_Puts)

_DROP_DEADLINE = ForRows(
    delete(tables.deadlines).where(tables.deadlines.c.call_id == bindparam("of_call"))
)
_DROP_OLD_REPLIES = ForRows(
    delete(tables.replay_keys).where(tables.replay_keys.c.at <= bindparam("until"))
)
_ADD_EVENT = ForRows(insert(tables.events))
_ADD_PROCESSED = ForRows(insert(tables.processed_keys))
_ADD_REPLY = ForRows(insert(tables.replay_keys))
_ADD_RESERVATION = ForRows(insert(tables.dial_reservations))


def store_batch(
    connection: Connection, writes: Sequence[Write], *, name: str, receipts: Receipts | None
) -> list[StoreError | None]:
    """Store commits in order. Returns an error for each, or None if it is stored.

    All go into one transaction. If a row is refused, each commit gets its own transaction, so that
    only the faulty one fails. ``name`` is what errors call the database. With ``receipts``, a lost
    connection is reopened, and what was lost with it is stored again.
    """

    def together() -> None:
        _drop_old_replies(connection, writes)
        _put_unique(connection, writes)
        _put_rest(connection, writes)

    try:
        _transact(connection, receipts, together)
    except StoreError as error:
        return [StoreTrouble(str(error)) for _ in writes]
    except (SQLAlchemyError, ValueError, OverflowError) as error:
        if _blames_row(error):
            return [_store_alone(connection, write, name, receipts) for write in writes]
        return [_database_error(name, error) for _ in writes]
    return [None] * len(writes)


def _store_alone(
    connection: Connection, write: Write, name: str, receipts: Receipts | None
) -> StoreError | None:
    try:
        _transact(connection, receipts, lambda: _put_alone(connection, write))
    except StoreError as error:
        return error
    except (SQLAlchemyError, ValueError, OverflowError) as error:
        return _database_error(name, error)
    return None


def _transact(connection: Connection, receipts: Receipts | None, work: Callable[[], None]) -> None:
    """Run ``work`` in a transaction, and once more if the connection was lost and there is no
    receipt of the first. Raises what ``work`` and the database raise."""
    if receipts is None:
        with connection.begin():
            work()
        return
    for attempt in (1, 2):
        number, asked = receipts.next(), False
        try:
            with connection.begin():
                receipts.leave(connection, number)
                work()
                asked = True
            return
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # What was lost before the COMMIT is certainly not stored.
            if asked and receipts.found(connection, number):
                return
            if attempt == 2:
                raise


def _blames_row(error: Exception) -> bool:
    """Whether a row may be the cause; any other error is the database's."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return False
    if isinstance(error, StatementError) and not isinstance(error, DBAPIError):
        # A value that its column type does not accept: it did not reach the database.
        return True
    sqlstate = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    # Class 54: a limit of the server is exceeded, such as the length of a key.
    return isinstance(error, _BAD_ROW) or sqlstate.startswith("54")


def _put_alone(connection: Connection, write: Write) -> None:
    """Store the rows of one commit, one at a time if a refusal must name the key."""
    _drop_old_replies(connection, [write])
    for kind, statement, rows in (
        ("processed", _ADD_PROCESSED, write.processed),
        ("replay", _ADD_REPLY, write.replies),
        ("dial", _ADD_RESERVATION, write.reservations),
    ):
        for row in rows:
            try:
                statement.run(connection, [row])
            except IntegrityError as error:
                raise DuplicateKey(kind, row["key"]) from error
    for row in write.aliases:
        try:
            _puts(connection.dialect.name).alias.run(connection, [row])
        except IntegrityError as error:
            raise StoreError(
                f"the carrier's id of call {row['call_id']} at {row['provider']} belongs "
                f"to another call: {row['provider_call_id']}"
            ) from error
    _put_rest(connection, [write])


def _drop_old_replies(connection: Connection, writes: Iterable[Write]) -> None:
    """Delete expired replies: their keys may be used again, and the table stays small."""
    now = max((w.now for w in writes if w.replies), default=None)
    if now is not None:
        _DROP_OLD_REPLIES.run(connection, [{"until": now - REPLIES_KEPT_MS}])


def _put_unique(connection: Connection, writes: Sequence[Write]) -> None:
    """Store the rows that may conflict with stored ones."""
    for statement, rows in (
        (_ADD_PROCESSED, _flat(w.processed for w in writes)),
        (_ADD_REPLY, _flat(w.replies for w in writes)),
        (_ADD_RESERVATION, _flat(w.reservations for w in writes)),
        (_puts(connection.dialect.name).alias, _flat(w.aliases for w in writes)),
    ):
        statement.run(connection, rows)


def _put_rest(connection: Connection, writes: Sequence[Write]) -> None:
    # If a call has several commits, only the record in the last one counts.
    put = _puts(connection.dialect.name)
    newest = {w.call["call_id"]: w for w in writes if w.call}
    for statement, rows in (
        (put.call, [w.call for w in newest.values() if w.call]),
        (put.deadline, _flat(w.deadlines for w in newest.values())),
        (_DROP_DEADLINE, [{"of_call": i} for i, w in newest.items() if not w.deadlines]),
        (put.entry, _flat(w.transcript for w in writes)),
        (_ADD_EVENT, _flat(w.events for w in writes)),
        (put.turn, _flat(w.turns for w in writes)),
        (put.approval, _flat(w.approvals for w in writes)),
    ):
        statement.run(connection, rows)


def _flat(groups: Iterable[Sequence[Params]]) -> list[Params]:
    return list(chain.from_iterable(groups))


def _database_error(name: str, error: Exception) -> StoreError:
    # Without the error as its cause, which a log would print: it quotes phone numbers and texts.
    kind = StoreError if _blames_row(error) else StoreTrouble
    return kind(f"{name}: the commit was not stored: {reason(error)}")
