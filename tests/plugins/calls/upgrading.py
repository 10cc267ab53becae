"""A database of an earlier version of the schema, opened by a store of today."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voicecall.model import DeadlineKind
from voicecall.store import Commit
from voicecall_calls.store.sqlstore import SqlStore
from voicecall_testing.contracts.records import call_record, ended

__all__ = ["Execute", "check_upgrade"]

Execute = Callable[[str], list[tuple[Any, ...]]]

VERSION_1 = (
    "DROP TABLE deadlines",
    """
    CREATE TABLE deadlines (
        call_id TEXT NOT NULL, kind TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (call_id, kind)
    )
    """,
    """
    INSERT INTO deadlines VALUES ('call-1', 'max_duration', 900), ('call-1', 'stream', 500),
        ('call-1', 'probe', 500), ('call-2', 'ring', 700)
    """,
    "CREATE INDEX processed_keys_at ON processed_keys (at)",
    "UPDATE schema_version SET version = 1",
)
DEADLINES = "SELECT call_id, kind, at FROM deadlines ORDER BY call_id"


async def check_upgrade(new_store: Callable[[], SqlStore], execute: Execute) -> None:
    record = call_record()
    async with (store := new_store()).lifespan():
        await store.commit(Commit(record=record, processed_keys=["old"]))
    for statement in VERSION_1:
        execute(statement)

    async with (store := new_store()).lifespan():
        assert execute("SELECT version FROM schema_version") == [(2,)]
        assert execute(DEADLINES) == [("call-1", "probe", 500), ("call-2", "ring", 700)]
        assert await store.load("call-1") == record
        assert await store.is_processed("old")
        later = call_record(deadlines={DeadlineKind.STREAM: 950, DeadlineKind.PROBE: 960})
        await store.commit(Commit(record=later))
        assert execute(DEADLINES) == [("call-1", "stream", 950), ("call-2", "ring", 700)]
        await store.commit(Commit(record=ended("call-2", 980)))
        assert execute(DEADLINES) == [("call-1", "stream", 950)]

    async with (store := new_store()).lifespan():
        assert await store.load("call-1") == later
        assert execute(DEADLINES) == [("call-1", "stream", 950)]
