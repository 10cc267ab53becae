"""Dropping what is over and old."""

from __future__ import annotations

from sqlalchemy import Connection, Select, delete, desc, func, or_, select

from .tables import (
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

__all__ = ["CALLS_PER_STEP", "prune_loose_rows", "prune_some"]

CALLS_PER_STEP = 200

_ENDED = func.coalesce(calls.c.ended_at, calls.c.started_at)
_ALL_IDS = select(calls.c.call_id)


def prune_some(connection: Connection, *, keep_calls: int, before: int) -> int:
    """Drop up to ``CALLS_PER_STEP`` calls that are over and are not among the newest
    ``keep_calls`` of these, or ended before ``before`` (epoch ms); how many went.

    In steps, so that commits get their turn between them.
    """
    over = select(calls.c.call_id).where(calls.c.live == 0)
    doomed: Select[tuple[str]] = (
        over.order_by(desc(_ENDED), desc(calls.c.call_id))
        .limit(CALLS_PER_STEP)
        .offset(max(keep_calls, 0))
    )
    ids = list(connection.execute(doomed).scalars())
    if not ids:
        aged = over.where(before > _ENDED).limit(CALLS_PER_STEP)
        ids = list(connection.execute(aged).scalars())
    if not ids:
        return 0
    for table in (calls, call_aliases, deadlines, transcript, events, turns):
        connection.execute(delete(table).where(table.c.call_id.in_(ids)))
    return len(ids)


def prune_loose_rows(connection: Connection, *, now: int, before: int) -> None:
    """Drop what belongs to no stored call and is old.

    A processed key outlives its call for as long as carriers may deliver again, since the event
    would make a new call otherwise; a reservation until ``before``, since its key dials once.
    """
    for table, until in (
        (processed_keys, now - REPLIES_KEPT_MS),
        (dial_reservations, before),
        (events, before),
        (turns, before),
    ):
        loose = or_(table.c.call_id.is_(None), table.c.call_id.not_in(_ALL_IDS))
        connection.execute(delete(table).where(table.c.at < until, loose))
