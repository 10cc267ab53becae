"""Checks of a database with an earlier schema version, opened by the current store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from voicecall.model import CallRecord, CallState, DeadlineKind, Direction, EndDetail, EndReason
from voicecall.store import Commit
from voicecall_calls.store.sqlstore import SqlStore
from voicecall_testing.contracts.records import NOW, call_record, ended

__all__ = ["Check", "Execute", "check_refused_apart", "check_upgrade"]

Execute = Callable[[str], list[tuple[Any, ...]]]
Check = Callable[[Callable[[], SqlStore], Execute], Awaitable[None]]

VERSION_2 = (
    "DROP INDEX calls_live",
    "ALTER TABLE calls DROP COLUMN refused",
    "CREATE INDEX calls_live ON calls (live, started_at)",
    "UPDATE schema_version SET version = 2",
)
VERSION_1 = (
    *VERSION_2,
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


REFUSED = "SELECT call_id, refused FROM calls ORDER BY call_id"


async def check_upgrade(new_store: Callable[[], SqlStore], execute: Execute) -> None:
    record = call_record()
    async with (store := new_store()).lifespan():
        await store.commit(Commit(record=record, processed_keys=["old"]))
    for statement in VERSION_1:
        execute(statement)

    async with (store := new_store()).lifespan():
        assert execute("SELECT version FROM schema_version") == [(3,)]
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


async def check_refused_apart(new_store: Callable[[], SqlStore], execute: Execute) -> None:
    """Those that were refused before the upgrade count apart after it, too."""

    def over(call_id: str, detail: EndDetail, **changes: Any) -> CallRecord:
        by_us = {"state": CallState.HANGUP_BOT, "end_reason": EndReason.HANGUP_BOT}
        return replace(ended(call_id, NOW), end_detail=detail, **by_us, **changes)

    records = [
        over("at stop", EndDetail.SHUTDOWN, answered_at=NOW),
        over("by policy", EndDetail.POLICY),
        over("full", EndDetail.CAPACITY),
        over("outbound", EndDetail.SHUTDOWN, direction=Direction.OUTBOUND),
        over("stopping", EndDetail.SHUTDOWN),
        over("words", EndDetail.REQUESTED, end_note='"end_detail":"policy"'),
    ]
    async with (store := new_store()).lifespan():
        for record in records:
            await store.commit(Commit(record=record))
    marks = [(record.call_id, int(record.refused)) for record in records]
    assert [refused for _, refused in marks] == [0, 1, 1, 0, 1, 0]
    for statement in VERSION_2:
        execute(statement)
    async with (store := new_store()).lifespan():
        assert execute(REFUSED) == marks
        assert await store.prune(NOW, keep_calls=2, keep_days=1) == 2
        assert sorted(refused for _, refused in execute(REFUSED)) == [0, 0, 1, 1]
