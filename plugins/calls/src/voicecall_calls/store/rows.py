"""Conversion between commits and rows. Pure: no database, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from voicecall.errors import StoreError
from voicecall.model import CallRecord, Speaker, TranscriptEntry
from voicecall.store import Commit, RecordedReply, StoredEvent, TurnRow

__all__ = [
    "UNREADABLE",
    "Params",
    "Write",
    "to_event",
    "to_record",
    "to_reply",
    "to_turn",
    "to_write",
]

Params = dict[str, Any]

UNREADABLE = (msgspec.MsgspecError, TypeError, ValueError, KeyError, AttributeError)
"""Exceptions raised when a row is decoded that is damaged or was written by a newer program."""


class Write(msgspec.Struct, frozen=True):
    """A commit as rows, ready for the writer. ``now`` is when it was requested."""

    now: int
    call: Params | None = None
    deadlines: Sequence[Params] = ()
    aliases: Sequence[Params] = ()
    transcript: Sequence[Params] = ()
    events: Sequence[Params] = ()
    processed: Sequence[Params] = ()
    replies: Sequence[Params] = ()
    reservations: Sequence[Params] = ()
    turns: Sequence[Params] = ()
    approvals: Sequence[Params] = ()
    changes: Sequence[CallRecord | TurnRow] = ()
    """The parts that the journal records."""


def to_write(commit: Commit, now: int) -> Write:
    """The rows of a commit. Raises :exc:`StoreError` for data that JSON cannot express."""
    record = commit.record
    call_id = record.call_id if record else None
    try:
        return Write(
            now=now,
            call=_call(record) if record else None,
            deadlines=_deadline(record) if record else (),
            aliases=_aliases(record) if record else (),
            transcript=_transcript(record, commit.transcript_from) if record else (),
            events=[
                {"call_id": call_id, "at": e.at, "type": e.type, "data": _json(e.data)}
                for e in commit.events
            ],
            processed=[{"key": k, "call_id": call_id, "at": now} for k in commit.processed_keys],
            replies=[_reply(commit.reply)] if commit.reply else (),
            reservations=[asdict(commit.reservation)] if commit.reservation else (),
            turns=[_turn(turn) for turn in commit.turns],
            approvals=[asdict(approval) for approval in commit.approvals],
            changes=[*([record] if record else ()), *commit.turns],
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"cannot be stored as JSON: {error}") from error


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _call(record: CallRecord) -> Params:
    return {
        "call_id": record.call_id,
        "provider": record.provider,
        "state": record.state.value,
        "live": int(record.live),
        "started_at": record.started_at,
        "ended_at": record.ended_at,
        "from_number": record.from_number,
        "to_number": record.to_number,
        # The same as encoding to_dict(), without creating the dict.
        "document": _json(replace(record, transcript=()) if record.transcript else record),
        "refused": int(record.refused),
    }


def _deadline(record: CallRecord) -> list[Params]:
    """The row of the next deadline; all deadlines are in the document."""
    following = record.next_deadline
    if following is None:
        return []
    at, kind = following
    return [{"call_id": record.call_id, "kind": kind.value, "at": at}]


def _aliases(record: CallRecord) -> list[Params]:
    ids: Iterable[str] = record.aliases
    if record.provider_call_id is not None:
        ids = dict.fromkeys((*record.aliases, record.provider_call_id))
    return [
        {"provider": record.provider, "provider_call_id": i, "call_id": record.call_id} for i in ids
    ]


def _transcript(record: CallRecord, start: int) -> list[Params]:
    return [
        {
            "call_id": record.call_id,
            "idx": idx,
            "at": entry.at,
            "speaker": entry.speaker.value,
            "text": entry.text,
            "complete": int(entry.complete),
        }
        for idx, entry in enumerate(record.transcript[start:], start)
    ]


def _reply(reply: RecordedReply) -> Params:
    return {
        "key": reply.key,
        "at": reply.at,
        "status": reply.status,
        "body": reply.body,
        "content_type": reply.content_type,
        "headers": _json(reply.headers),
    }


def _turn(turn: TurnRow) -> Params:
    return {**asdict(turn), "filler": int(turn.filler)}


def to_record(document: str, transcript: Iterable[Mapping[str, Any]]) -> CallRecord:
    """The record of a row, with the rows of its transcript. Raises :exc:`StoreError` if one is
    damaged or was written by a newer program."""
    try:
        entries = tuple([_to_entry(row) for row in transcript])
        return CallRecord.from_dict(msgspec.json.decode(document), entries)
    except UNREADABLE as error:
        raise StoreError(
            f"the record of a call cannot be read ({error.__class__.__name__})"
        ) from error


def _to_entry(row: Mapping[str, Any]) -> TranscriptEntry:
    return TranscriptEntry(row["at"], Speaker(row["speaker"]), row["text"], bool(row["complete"]))


def to_event(row: Mapping[str, Any]) -> StoredEvent:
    return StoredEvent(row["at"], row["type"], msgspec.json.decode(row["data"]))


def to_reply(row: Mapping[str, Any]) -> RecordedReply:
    return RecordedReply(
        key=row["key"],
        at=row["at"],
        status=row["status"],
        body=row["body"],
        content_type=row["content_type"],
        headers=msgspec.json.decode(row["headers"]),
    )


def to_turn(row: Mapping[str, Any]) -> TurnRow:
    return TurnRow(**{**row, "filler": bool(row["filler"])})
