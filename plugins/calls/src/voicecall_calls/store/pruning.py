"""Dropping what is over and old."""

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
"""Rows that a step looks at, most of which stay."""

Place = tuple[int, Any]
"""How far :func:`prune_loose_some` has come: a table, and a value in its order."""

_ENDED = func.coalesce(calls.c.ended_at, calls.c.started_at)
_ALL_IDS = select(calls.c.call_id)


def prune_some(connection: Connection, *, keep_calls: int, before: int) -> int:
    """Drop up to ``CALLS_PER_STEP`` calls that are over and are not among the newest
    ``keep_calls`` of these, or ended before ``before`` (epoch ms); how many went.

    Refused ones are counted apart: they cost their callers nothing, and enough of them would push
    out the others. In steps, so that commits get their turn between them. They are found by when
    they started, which has an index: to look at all calls takes seconds where there are many.
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
    """Look at the next ``ROWS_PER_STEP`` rows behind ``place``, which is ``(0, None)`` at first,
    and drop what belongs to no stored call and is old. Where to go on; None: that was all.

    A processed key outlives its call for as long as carriers may deliver again, since the event
    would make a new call otherwise; a reservation until ``before``, since its key dials once.
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
    """Drop callers who were told a code that counts no more: whoever calls again gets another."""
    waiting = approvals.c.status == "pending"
    connection.execute(delete(approvals).where(waiting, approvals.c.expires_at <= now))
