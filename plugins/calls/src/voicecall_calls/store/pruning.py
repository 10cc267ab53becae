"""Deleting old data of finished calls."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, delete, desc, func, or_, select

from .tables import (
    approvals,
    call_aliases,
    calls,
    deadlines,
    dial_reservations,
    events,
    processed_keys,
    transcript,
    turns,
)
from .writing import REPLIES_KEPT_MS

__all__ = [
    "CALLS_PER_STEP",
    "ROWS_PER_STEP",
    "Place",
    "drop_expired_codes",
    "prune_loose_some",
    "prune_some",
]

CALLS_PER_STEP = 200
ROWS_PER_STEP = 5000
"""Rows that a step examines, most of which stay."""

Place = tuple[int, Any]
"""How far :func:`prune_loose_some` has come: the index of a table, and its last value examined."""

_ENDED = func.coalesce(calls.c.ended_at, calls.c.started_at)
_ALL_IDS = select(calls.c.call_id)


def prune_some(connection: Connection, *, keep_calls: int, before: int) -> int:
    """Delete up to ``CALLS_PER_STEP`` finished calls that are not among the newest ``keep_calls``
    finished ones, or ended before ``before`` (epoch ms). Returns how many were deleted.

    Refused calls are counted separately: they cost their callers nothing, and enough of them would
    push out the others. Deleting in steps lets commits run in between. Calls are selected by start
    time, which has an index: a scan of all calls takes seconds if there are many.
    """
    for refused in (0, 1):
        if ids := _doomed(connection, refused, keep_calls, before):
            for table in (calls, call_aliases, deadlines, transcript, events, turns):
                connection.execute(delete(table).where(table.c.call_id.in_(ids)))
            return len(ids)
    return 0


def _doomed(connection: Connection, refused: int, keep_calls: int, before: int) -> list[str]:
    over: Select[tuple[str]] = select(calls.c.call_id).where(
        calls.c.live == 0, calls.c.refused == refused
    )
    newest = over.order_by(desc(calls.c.started_at))
    many = newest.limit(CALLS_PER_STEP).offset(max(keep_calls, 0))
    aged = over.where(before > calls.c.started_at, before > _ENDED).limit(CALLS_PER_STEP)
    return list(connection.scalars(many)) or list(connection.scalars(aged))


def prune_loose_some(
    connection: Connection, place: Place, *, now: int, before: int
) -> Place | None:
    """Examine the next ``ROWS_PER_STEP`` rows after ``place`` (initially ``(0, None)``), and delete
    those that are old and belong to no stored call. Returns where to continue; None at the end.

    A processed key is kept as long as carriers may redeliver its event, even without its call:
    otherwise the event would open a new one. Reservations are kept until ``before``, since a key
    dials only once.
    """
    orders = (
        (processed_keys, processed_keys.c.key, now - REPLIES_KEPT_MS),
        (dial_reservations, dial_reservations.c.key, before),
        (events, events.c.seq, before),
        (turns, turns.c.call_id, before),
    )
    number, last = place
    table, order, until = orders[number]
    behind = [] if last is None else [order > last]
    further = select(order).where(*behind).order_by(order).limit(1).offset(ROWS_PER_STEP - 1)
    following = connection.execute(further).scalar()
    here = behind if following is None else [*behind, order <= following]
    loose = or_(table.c.call_id.is_(None), table.c.call_id.not_in(_ALL_IDS))
    connection.execute(delete(table).where(*here, table.c.at < until, loose))
    if following is not None:
        return number, following
    return (number + 1, None) if number + 1 < len(orders) else None


def drop_expired_codes(connection: Connection, *, now: int) -> None:
    """Delete pending approvals whose code has expired: a caller who calls again gets a new one."""
    waiting = approvals.c.status == "pending"
    connection.execute(delete(approvals).where(waiting, approvals.c.expires_at <= now))
