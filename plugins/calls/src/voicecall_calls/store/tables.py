"""The tables. A change here needs a step in :mod:`.schema`."""

from __future__ import annotations

from sqlalchemy import Column, Index, LargeBinary, MetaData, Table

from .columns import Whole, Words

__all__ = [
    "approvals",
    "call_aliases",
    "calls",
    "deadlines",
    "dial_reservations",
    "events",
    "metadata",
    "processed_keys",
    "replay_keys",
    "schema_version",
    "transcript",
    "turns",
]

metadata = MetaData()

schema_version = Table(
    "schema_version", metadata, Column("version", Whole, primary_key=True, autoincrement=False)
)

calls = Table(
    "calls",
    metadata,
    Column("call_id", Words, primary_key=True),
    Column("provider", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("live", Whole, nullable=False),
    Column("started_at", Whole, nullable=False),
    Column("ended_at", Whole),
    Column("from_number", Words, nullable=False),
    Column("to_number", Words, nullable=False),
    Column("document", Words, nullable=False),
    Column("refused", Whole, nullable=False),
    Index("calls_started", "started_at"),
    Index("calls_live", "live", "refused", "started_at"),
)

call_aliases = Table(
    "call_aliases",
    metadata,
    Column("provider", Words, primary_key=True),
    Column("provider_call_id", Words, primary_key=True),
    Column("call_id", Words, nullable=False),
    Index("call_aliases_call", "call_id"),
    sqlite_with_rowid=False,
)

deadlines = Table(
    "deadlines",
    metadata,
    Column("call_id", Words, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("at", Whole, nullable=False),
    sqlite_with_rowid=False,
)

transcript = Table(
    "transcript",
    metadata,
    Column("call_id", Words, primary_key=True),
    Column("idx", Whole, primary_key=True, autoincrement=False),
    Column("at", Whole, nullable=False),
    Column("speaker", Words, nullable=False),
    Column("text", Words, nullable=False),
    Column("complete", Whole, nullable=False),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("seq", Whole, primary_key=True),
    Column("call_id", Words),
    Column("at", Whole, nullable=False),
    Column("type", Words, nullable=False),
    Column("data", Words, nullable=False),
    Index("events_call", "call_id", "seq"),
)

processed_keys = Table(
    "processed_keys",
    metadata,
    Column("key", Words, primary_key=True),
    Column("call_id", Words),
    Column("at", Whole, nullable=False),
    sqlite_with_rowid=False,
)

replay_keys = Table(
    "replay_keys",
    metadata,
    Column("key", Words, primary_key=True),
    Column("at", Whole, nullable=False),
    Column("status", Whole, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", Words, nullable=False),
    Column("headers", Words, nullable=False),
    Index("replay_keys_at", "at"),
)

dial_reservations = Table(
    "dial_reservations",
    metadata,
    Column("key", Words, primary_key=True),
    Column("call_id", Words, nullable=False),
    Column("at", Whole, nullable=False),
    sqlite_with_rowid=False,
)

turns = Table(
    "turns",
    metadata,
    Column("call_id", Words, primary_key=True),
    Column("turn_id", Words, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("at", Whole, nullable=False),
    Column("speech_started", Whole),
    Column("speech_ended", Whole),
    Column("stt_final", Whole),
    Column("agent_start", Whole),
    Column("first_token", Whole),
    Column("agent_done", Whole),
    Column("tts_first_byte", Whole),
    Column("first_audio_sent", Whole),
    Column("playback_done", Whole),
    Column("barge_in_at", Whole),
    Column("barge_in_stop_ms", Whole),
    Column("filler", Whole, nullable=False),
    Column("failed", Words),
    Index("turns_at", "at"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("number", Words, primary_key=True),
    Column("status", Words, nullable=False),
    Column("code", Words, nullable=False),
    Column("at", Whole, nullable=False),
    Column("expires_at", Whole, nullable=False),
    sqlite_with_rowid=False,
)
