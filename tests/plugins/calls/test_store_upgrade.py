"""A database of an earlier version of the schema is opened and goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from voicecall.model import DeadlineKind
from voicecall.seam import SystemSeam
from voicecall.store import Commit
from voicecall_calls.store import SqliteStore
from voicecall_calls.store.postgres import PostgresStore
from voicecall_calls.store.sqlstore import SqlStore
from voicecall_testing.contracts.store import call_record, ended

from .postgres_server import Server

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

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


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


async def test_a_file_of_version_1(tmp_path: Path) -> None:
    def execute(statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(tmp_path / "calls.db", isolation_level=None)) as other:
            return other.execute(statement).fetchall()

    await check_upgrade(lambda: SqliteStore(tmp_path, SystemSeam()), execute)


@pytest.mark.postgres
async def test_a_server_of_version_1(
    database_url: str, postgres_server: Server, tmp_path: Path
) -> None:
    await check_upgrade(
        lambda: PostgresStore(database_url, tmp_path, SystemSeam()),
        lambda statement: postgres_server.execute(statement, database_url),
    )
