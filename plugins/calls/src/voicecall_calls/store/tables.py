"""The tables. A change here needs a step in :mod:`.schema`."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, MetaData, Table, Text

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
    "schema_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False)
)

calls = Table(
    "calls",
    metadata,
    Column("call_id", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("live", Integer, nullable=False),
    Column("started_at", Integer, nullable=False),
    Column("ended_at", Integer),
    Column("from_number", Text, nullable=False),
    Column("to_number", Text, nullable=False),
    Column("document", Text, nullable=False),
    Index("calls_started", "started_at"),
    Index("calls_live", "live", "started_at"),
)

call_aliases = Table(
    "call_aliases",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("provider_call_id", Text, primary_key=True),
    Column("call_id", Text, nullable=False),
    Index("call_aliases_call", "call_id"),
    sqlite_with_rowid=False,
)

deadlines = Table(
    "deadlines",
    metadata,
    Column("call_id", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("at", Integer, nullable=False),
    sqlite_with_rowid=False,
)

transcript = Table(
    "transcript",
    metadata,
    Column("call_id", Text, primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("at", Integer, nullable=False),
    Column("speaker", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("complete", Integer, nullable=False),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("call_id", Text),
    Column("at", Integer, nullable=False),
    Column("type", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("events_call", "call_id", "seq"),
)

processed_keys = Table(
    "processed_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("call_id", Text),
    Column("at", Integer, nullable=False),
    Index("processed_keys_at", "at"),
    sqlite_with_rowid=False,
)

replay_keys = Table(
    "replay_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("at", Integer, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("content_type", Text, nullable=False),
    Column("headers", Text, nullable=False),
    Index("replay_keys_at", "at"),
)

dial_reservations = Table(
    "dial_reservations",
    metadata,
    Column("key", Text, primary_key=True),
    Column("call_id", Text, nullable=False),
    Column("at", Integer, nullable=False),
    sqlite_with_rowid=False,
)

turns = Table(
    "turns",
    metadata,
    Column("call_id", Text, primary_key=True),
    Column("turn_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Column("speech_started", Integer),
    Column("speech_ended", Integer),
    Column("stt_final", Integer),
    Column("agent_start", Integer),
    Column("first_token", Integer),
    Column("agent_done", Integer),
    Column("tts_first_byte", Integer),
    Column("first_audio_sent", Integer),
    Column("playback_done", Integer),
    Column("barge_in_at", Integer),
    Column("barge_in_stop_ms", Integer),
    Column("filler", Integer, nullable=False),
    Column("failed", Text),
    Index("turns_at", "at"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("number", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    sqlite_with_rowid=False,
)
