"""The store's queries. Each runs on the reader's connection, inside its transaction."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, desc, select

from voicecall.errors import StoreError
from voicecall.model import CallRecord
from voicecall.store import Approval, DialReservation, RecordedReply, StoredEvent, TurnRow

from .rows import to_event, to_record, to_reply, to_turn
from .tables import (
    approvals,
    call_aliases,
    calls,
    dial_reservations,
    events,
    processed_keys,
    replay_keys,
    transcript,
    turns,
)

__all__ = [
    "approvals_of",
    "events_of",
    "find_call",
    "is_processed",
    "live_calls",
    "load_call",
    "recent_calls",
    "reply_of",
    "reservation_of",
    "turns_of",
]

_log = logging.getLogger("voicecall.store")

_IDS_PER_QUERY = 500

_CALL = select(calls.c.call_id, calls.c.document)
_LOAD = _CALL.where(calls.c.call_id == bindparam("call_id"))
_FIND = _CALL.join(call_aliases, call_aliases.c.call_id == calls.c.call_id).where(
    call_aliases.c.provider == bindparam("provider"),
    call_aliases.c.provider_call_id == bindparam("provider_call_id"),
)
_LIVE = _CALL.where(calls.c.live == 1).order_by(calls.c.started_at, calls.c.call_id)
_RECENT = _CALL.order_by(desc(calls.c.started_at), desc(calls.c.call_id)).limit(bindparam("most"))
_TRANSCRIPTS = (
    select(transcript)
    .where(transcript.c.call_id.in_(bindparam("ids", expanding=True)))
    .order_by(transcript.c.call_id, transcript.c.idx)
)
_PROCESSED = select(processed_keys.c.key).where(processed_keys.c.key == bindparam("key"))
_REPLY = select(replay_keys).where(
    replay_keys.c.key == bindparam("key"), replay_keys.c.at > bindparam("after")
)
_RESERVATION = select(dial_reservations).where(dial_reservations.c.key == bindparam("key"))
_EVENTS = select(events).where(events.c.call_id == bindparam("call_id")).order_by(events.c.seq)
_TURNS = select(turns).order_by(desc(turns.c.at), desc(turns.c.turn_id)).limit(bindparam("most"))
_APPROVALS = select(approvals).order_by(desc(approvals.c.at), approvals.c.number)
_APPROVAL = _APPROVALS.where(approvals.c.number == bindparam("number"))
_TURNS_OF_CALL = _TURNS.where(turns.c.call_id == bindparam("call_id"))


def load_call(connection: Connection, call_id: str) -> CallRecord | None:
    return _one(connection, _LOAD, {"call_id": call_id})


def find_call(connection: Connection, provider: str, provider_call_id: str) -> CallRecord | None:
    return _one(connection, _FIND, {"provider": provider, "provider_call_id": provider_call_id})


def live_calls(connection: Connection) -> list[CallRecord]:
    """Oldest first."""
    return _many(connection, _LIVE, {})


def recent_calls(connection: Connection, limit: int) -> list[CallRecord]:
    return _many(connection, _RECENT, {"most": max(limit, 0)})


def is_processed(connection: Connection, key: str) -> bool:
    return connection.execute(_PROCESSED, {"key": key}).first() is not None


def reply_of(connection: Connection, key: str, after: int) -> RecordedReply | None:
    """The reply of this key, unless it was recorded at or before ``after``."""
    row = connection.execute(_REPLY, {"key": key, "after": after}).mappings().first()
    return to_reply(dict(row)) if row else None


def reservation_of(connection: Connection, key: str) -> DialReservation | None:
    row = connection.execute(_RESERVATION, {"key": key}).mappings().first()
    return DialReservation(**row) if row else None


def events_of(connection: Connection, call_id: str) -> list[StoredEvent]:
    found = connection.execute(_EVENTS, {"call_id": call_id}).mappings()
    return [to_event(dict(row)) for row in found]


def turns_of(connection: Connection, call_id: str | None, limit: int) -> list[TurnRow]:
    params: dict[str, Any] = {"most": max(limit, 0)}
    statement = _TURNS
    if call_id is not None:
        statement = _TURNS_OF_CALL
        params["call_id"] = call_id
    return [to_turn(dict(row)) for row in connection.execute(statement, params).mappings()]


def approvals_of(connection: Connection, number: str | None) -> list[Approval]:
    if number is None:
        rows = connection.execute(_APPROVALS).mappings()
    else:
        rows = connection.execute(_APPROVAL, {"number": number}).mappings()
    return [Approval(**row) for row in rows]


def _one(
    connection: Connection, statement: Select[Any], params: dict[str, Any]
) -> CallRecord | None:
    row = connection.execute(statement, params).first()
    if row is None:
        return None
    return to_record(row.document, _transcripts(connection, [row.call_id])[row.call_id])


def _many(
    connection: Connection, statement: Select[Any], params: dict[str, Any]
) -> list[CallRecord]:
    rows = connection.execute(statement, params).all()
    entries = _transcripts(connection, [row.call_id for row in rows])
    found = []
    for row in rows:
        try:
            found.append(to_record(row.document, entries[row.call_id]))
        except StoreError as error:
            # One bad row must not keep the gateway from starting with the others.
            _log.error("call %s is skipped: %s", row.call_id, error)
    return found


def _transcripts(
    connection: Connection, call_ids: Sequence[str]
) -> defaultdict[str, list[Mapping[str, Any]]]:
    """Rows by call."""
    found: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for start in range(0, len(call_ids), _IDS_PER_QUERY):
        ids = call_ids[start : start + _IDS_PER_QUERY]
        for row in connection.execute(_TRANSCRIPTS, {"ids": ids}).mappings():
            found[row["call_id"]].append(dict(row))
    return found
