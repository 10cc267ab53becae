"""What the writer thread does with a batch of commits: one transaction, a statement per table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from sqlalchemy import Connection, bindparam, case, delete, null
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import (
    DataError,
    IntegrityError,
    InterfaceError,
    ProgrammingError,
    SQLAlchemyError,
)

from voicecall.errors import DuplicateKey, StoreError

from . import tables
from .database import reason
from .rows import Params, Write

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
"""What a row can be the cause of; every other error is the database's own."""

_call = insert(tables.calls)
_PUT_CALL = _call.on_conflict_do_update(
    index_elements=["call_id"],
    set_={c.name: _call.excluded[c.name] for c in tables.calls.c if not c.primary_key},
)

_alias = insert(tables.call_aliases)
# An alias of another call becomes NULL, which the column refuses: one statement checks and stores.
_PUT_ALIAS = _alias.on_conflict_do_update(
    index_elements=["provider", "provider_call_id"],
    set_={
        "call_id": case(
            (tables.call_aliases.c.call_id == _alias.excluded.call_id, _alias.excluded.call_id),
            else_=null(),
        )
    },
)

_entry = insert(tables.transcript)
_PUT_ENTRY = _entry.on_conflict_do_update(
    index_elements=["call_id", "idx"],
    set_={c.name: _entry.excluded[c.name] for c in tables.transcript.c if not c.primary_key},
)

_turn = insert(tables.turns)
_PUT_TURN = _turn.on_conflict_do_update(
    index_elements=["call_id", "turn_id"],
    set_={c.name: _turn.excluded[c.name] for c in tables.turns.c if not c.primary_key},
)

_approval = insert(tables.approvals)
_PUT_APPROVAL = _approval.on_conflict_do_update(
    index_elements=["number"],
    set_={c.name: _approval.excluded[c.name] for c in tables.approvals.c if not c.primary_key},
)

_DROP_DEADLINES = delete(tables.deadlines).where(tables.deadlines.c.call_id == bindparam("of_call"))
_DROP_OLD_REPLIES = delete(tables.replay_keys).where(tables.replay_keys.c.at <= bindparam("until"))
_ADD_DEADLINE = insert(tables.deadlines)
_ADD_EVENT = insert(tables.events)
_ADD_PROCESSED = insert(tables.processed_keys)
_ADD_REPLY = insert(tables.replay_keys)
_ADD_RESERVATION = insert(tables.dial_reservations)


def store_batch(connection: Connection, writes: Sequence[Write]) -> list[StoreError | None]:
    """Store commits in their order; for each its error, None where it is stored.

    All go into one transaction. Where a row of one is refused, each gets a transaction of its
    own, so that only the guilty one fails.
    """
    try:
        with connection.begin():
            _drop_old_replies(connection, writes)
            _put_unique(connection, writes)
            _put_rest(connection, writes)
    except _BAD_ROW:
        return [_store_alone(connection, write) for write in writes]
    except SQLAlchemyError as error:
        return [_database_error(connection, error) for _ in writes]
    return [None] * len(writes)


def _store_alone(connection: Connection, write: Write) -> StoreError | None:
    """Store one commit, row by row where a refusal must name the key."""
    try:
        with connection.begin():
            _drop_old_replies(connection, [write])
            for kind, statement, rows in (
                ("processed", _ADD_PROCESSED, write.processed),
                ("replay", _ADD_REPLY, write.replies),
                ("dial", _ADD_RESERVATION, write.reservations),
            ):
                for row in rows:
                    try:
                        connection.execute(statement, row)
                    except IntegrityError as error:
                        raise DuplicateKey(kind, row["key"]) from error
            for row in write.aliases:
                try:
                    connection.execute(_PUT_ALIAS, row)
                except IntegrityError as error:
                    raise StoreError(
                        f"the carrier's id of call {row['call_id']} at {row['provider']} belongs "
                        f"to another call: {row['provider_call_id']}"
                    ) from error
            _put_rest(connection, [write])
    except StoreError as error:
        return error
    except (SQLAlchemyError, ValueError, OverflowError) as error:
        return _database_error(connection, error)
    return None


def _drop_old_replies(connection: Connection, writes: Iterable[Write]) -> None:
    """Expired keys may be used again, and the table stays small."""
    now = max((w.now for w in writes if w.replies), default=None)
    if now is not None:
        connection.execute(_DROP_OLD_REPLIES, {"until": now - REPLIES_KEPT_MS})


def _put_unique(connection: Connection, writes: Sequence[Write]) -> None:
    """The rows that may clash with what is stored."""
    for statement, rows in (
        (_ADD_PROCESSED, _flat(w.processed for w in writes)),
        (_ADD_REPLY, _flat(w.replies for w in writes)),
        (_ADD_RESERVATION, _flat(w.reservations for w in writes)),
        (_PUT_ALIAS, _flat(w.aliases for w in writes)),
    ):
        if rows:
            connection.execute(statement, rows)


def _put_rest(connection: Connection, writes: Sequence[Write]) -> None:
    # Of several commits of one call only the last one's record counts.
    newest = {w.call["call_id"]: w for w in writes if w.call}
    for statement, rows in (
        (_PUT_CALL, [w.call for w in newest.values() if w.call]),
        (_DROP_DEADLINES, [{"of_call": call_id} for call_id in newest]),
        (_ADD_DEADLINE, _flat(w.deadlines for w in newest.values())),
        (_PUT_ENTRY, _flat(w.transcript for w in writes)),
        (_ADD_EVENT, _flat(w.events for w in writes)),
        (_PUT_TURN, _flat(w.turns for w in writes)),
        (_PUT_APPROVAL, _flat(w.approvals for w in writes)),
    ):
        if rows:
            connection.execute(statement, rows)


def _flat(groups: Iterable[Sequence[Params]]) -> list[Params]:
    return list(chain.from_iterable(groups))


def _database_error(connection: Connection, error: Exception) -> StoreError:
    file = connection.engine.url.database
    made = StoreError(f"{file}: the commit was not stored: {reason(error)}")
    made.__cause__ = error
    return made
