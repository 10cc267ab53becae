"""Group commit: batches, the one commit that fails, cancelled waiters, database errors."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, event

from voicecall.errors import DuplicateKey, StoreError
from voicecall.seam import SystemSeam
from voicecall.store import Commit, RecordedReply, StoredEvent
from voicecall_calls.store import SqliteStore
from voicecall_calls.store.sqlstore import TOLD_S
from voicecall_testing.contracts.records import call_record

from .committing import together, until_outstanding

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path, SystemSeam())
    async with store.lifespan():
        yield store


@contextmanager
def writer_held_up(directory: Path) -> Iterator[None]:
    """Hold SQLite's write lock, so that the writer waits in its first transaction."""
    other = sqlite3.connect(directory / "calls.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def counted_transactions() -> Iterator[list[str]]:
    """One entry for each COMMIT and ROLLBACK of any engine."""
    seen: list[str] = []

    def committed(_connection: object) -> None:
        seen.append("commit")

    def rolled_back(_connection: object) -> None:
        seen.append("rollback")

    event.listen(Engine, "commit", committed)
    event.listen(Engine, "rollback", rolled_back)
    try:
        yield seen
    finally:
        event.remove(Engine, "commit", committed)
        event.remove(Engine, "rollback", rolled_back)


async def test_waiting_commits_share_a_transaction(store: SqliteStore, tmp_path: Path) -> None:
    commits = [Commit(record=call_record(f"c{n}"), processed_keys=[f"k{n}"]) for n in range(100)]
    with counted_transactions() as transactions:
        outcomes = await together(store, writer_held_up(tmp_path), commits)
    assert outcomes == [None] * 100
    # What the writer took before it was held up, and all the rest.
    assert 1 <= len(transactions) <= 2
    assert set(transactions) == {"commit"}
    assert len(await store.live()) == 100


async def test_a_batch_is_bounded(store: SqliteStore, tmp_path: Path) -> None:
    commits = [Commit(processed_keys=[f"k{n}"]) for n in range(600)]
    with counted_transactions() as transactions:
        assert await together(store, writer_held_up(tmp_path), commits) == [None] * 600
    assert 3 <= len(transactions) <= 4


async def test_only_the_guilty_one_fails(store: SqliteStore, tmp_path: Path) -> None:
    await store.commit(Commit(record=call_record("old"), processed_keys=["taken"]))
    commits = [Commit(record=call_record(f"c{n}"), processed_keys=[f"k{n}"]) for n in range(20)]
    commits[7] = Commit(record=call_record("c7"), processed_keys=["k7", "taken"])
    commits[12] = Commit(record=call_record("c12").with_alias("id-of-old"))
    commits[15] = Commit(record=call_record("c15"), processed_keys=["k3"])
    outcomes = await together(store, writer_held_up(tmp_path), commits)
    failed = {index: error for index, error in enumerate(outcomes) if error is not None}
    assert set(failed) == {7, 12, 15}
    for index, key in ((7, "taken"), (15, "k3")):
        error = failed[index]
        assert isinstance(error, DuplicateKey)
        assert (error.kind, error.key) == ("processed", key)
    assert "belongs to another call" in str(failed[12])
    assert {record.call_id for record in await store.live()} == (
        {"old"} | {f"c{n}" for n in range(20)} - {"c7", "c12", "c15"}
    )
    assert not await store.is_processed("k7")


async def test_beside_a_guilty_one_an_expired_key_may_be_used_again(
    store: SqliteStore, tmp_path: Path
) -> None:
    now = SystemSeam().now_ms()
    old = RecordedReply("r", now - 25 * 3600 * 1000, 200, b"old", "text/plain")
    await store.commit(Commit(reply=old, processed_keys=["taken"]))
    renewed = replace(old, at=now, body=b"new")
    commits = [Commit(processed_keys=["taken"]), Commit(reply=renewed)]
    guilty, other = await together(store, writer_held_up(tmp_path), commits)
    assert isinstance(guilty, DuplicateKey)
    assert other is None
    assert await store.reply("r") == renewed


async def test_a_value_that_sqlite_cannot_hold(store: SqliteStore, tmp_path: Path) -> None:
    commits = [Commit(record=call_record(f"c{n}")) for n in range(5)]
    commits[2] = Commit(record=call_record("c2", started_at=2**63, from_number="+15557654321"))
    outcomes = await together(store, writer_held_up(tmp_path), commits)
    assert [isinstance(error, StoreError) for error in outcomes] == [n == 2 for n in range(5)]
    assert "7654321" not in str(outcomes[2])
    assert len(await store.live()) == 4


async def test_several_commits_of_one_call_in_a_batch(store: SqliteStore, tmp_path: Path) -> None:
    commits = [
        Commit(record=call_record(session_key=str(n)), events=[StoredEvent(n, "E", {"n": n})])
        for n in range(10)
    ]
    assert await together(store, writer_held_up(tmp_path), commits) == [None] * 10
    assert await store.load("call-1") == call_record(session_key="9")
    assert [stored.at for stored in await store.events("call-1")] == list(range(10))


async def test_a_database_error_fails_all_and_passes(store: SqliteStore, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "calls.db", isolation_level=None)
    other.execute("ALTER TABLE events RENAME TO hidden")
    commit = Commit(record=call_record(), events=[StoredEvent(1, "E", {})], processed_keys=["k"])
    with pytest.raises(StoreError, match=r"calls\.db: .*no such table") as caught:
        await store.commit(commit)
    assert not isinstance(caught.value, DuplicateKey)
    with pytest.raises(StoreError, match=r"calls\.db: no such table"):
        await store.events("call-1")
    assert await store.load("call-1") is None
    assert not await store.is_processed("k")
    with counted_transactions() as transactions:
        others = [replace(commit, processed_keys=[]) for _ in range(20)]
        outcomes = await together(store, writer_held_up(tmp_path), others)
    assert all(isinstance(error, StoreError) for error in outcomes)
    # An error that is no row's fault is not retried one by one: a locked database takes its time.
    assert len(transactions) <= 2
    other.execute("ALTER TABLE hidden RENAME TO events")
    other.close()
    await store.commit(commit)
    assert await store.events("call-1") == [StoredEvent(1, "E", {})]


class Still(SystemSeam):
    """A clock that stands still."""

    def now_ms(self) -> int:
        return 1_700_000_000_000


async def test_a_reply_is_void_at_its_very_time(tmp_path: Path) -> None:
    before = Still().now_ms() - 24 * 3600 * 1000
    last = RecordedReply("last", before + 1, 200, b"", "text/plain")
    over = RecordedReply("over", before, 200, b"", "text/plain")
    async with (store := SqliteStore(tmp_path, Still())).lifespan():
        await store.commit(Commit(reply=over))
        await store.commit(Commit(reply=last))
        with closing(sqlite3.connect(tmp_path / "calls.db")) as other:
            assert other.execute("SELECT key FROM replay_keys").fetchall() == [("last",)]
        assert await store.reply("last") == last
        assert await store.reply("over") is None
        with pytest.raises(DuplicateKey):
            await store.commit(Commit(reply=last))
        await store.commit(Commit(reply=replace(over, at=before + 2)))
        assert await store.reply("over") is not None


async def test_commits_are_a_pause_apart(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, SystemSeam(), pause_s=3600)
    async with anyio.create_task_group() as tasks:
        async with store.lifespan():
            with anyio.fail_after(60):
                await store.commit(Commit(processed_keys=["first"]))
            tasks.start_soon(store.commit, Commit(processed_keys=["second"]))
            for _ in range(20):
                assert not await store.is_processed("second")
    async with store.lifespan():
        assert await store.is_processed("second")


class Later(SystemSeam):
    """A clock that a test moves forward."""

    passed_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.passed_s


async def test_what_fails_all_is_told_until_something_is_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "voicecall.store")
    seam = Later()
    async with (store := SqliteStore(tmp_path, seam)).lifespan():
        await store.commit(Commit(record=call_record("old"), processed_keys=["taken"]))
        assert list(store.problems()) == []
        other = sqlite3.connect(tmp_path / "calls.db", isolation_level=None)
        other.execute("ALTER TABLE events RENAME TO hidden")
        commit = Commit(record=call_record(), events=[StoredEvent(1, "E", {})])
        told = f"calls cannot be stored: {tmp_path}/calls.db: the commit was not stored: no such"
        for _ in range(2):
            with pytest.raises(StoreError):
                await store.commit(commit)
            # A fault of one row says nothing about the others.
            with pytest.raises(DuplicateKey):
                await store.commit(Commit(processed_keys=["taken"]))
            with pytest.raises(StoreError):
                await store.commit(Commit(record=call_record("c2").with_alias("id-of-old")))
            (problem,) = store.problems()
            assert problem.startswith(told)
            seam.passed_s += TOLD_S
            assert list(store.problems()) == []
        with pytest.raises(StoreError):
            await store.commit(commit)
        other.execute("ALTER TABLE hidden RENAME TO events")
        other.close()
        assert len(store.problems()) == 1
        await store.commit(commit)
        assert list(store.problems()) == []
        assert caplog.messages == [problem, "calls are stored again"]
        with pytest.raises(StoreError):
            await store.commit(Commit(record=call_record("c2").with_alias("id-of-old")))
        assert list(store.problems()) == []


async def test_a_cancelled_waiter(store: SqliteStore, tmp_path: Path) -> None:
    commit = Commit(record=call_record(), processed_keys=["k"])
    reached: list[str] = []

    async def commit_it(scope: anyio.CancelScope) -> None:
        with scope:
            await store.commit(commit)
            reached.append("committed")

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        with writer_held_up(tmp_path):
            group.start_soon(commit_it, scope)
            await until_outstanding(store, 1)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
            assert store.outstanding == 1
    assert reached == []
    await store.commit(Commit(record=call_record("next")))
    assert {record.call_id for record in await store.live()} == {"call-1", "next"}
    assert await store.is_processed("k")


async def test_outstanding_tells_of_work(store: SqliteStore, tmp_path: Path) -> None:
    assert store.outstanding == 0
    async with anyio.create_task_group() as group:
        with writer_held_up(tmp_path):
            group.start_soon(store.commit, Commit(processed_keys=["k"]))
            await until_outstanding(store, 1)
            # Readers do not wait for the writer.
            assert not await store.is_processed("k")
            assert store.outstanding == 1
    assert store.outstanding == 0
    assert await store.is_processed("k")


async def test_closing_drains_the_queue(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, SystemSeam())
    done: list[int] = []

    async def one(n: int) -> None:
        await store.commit(Commit(record=call_record(f"c{n}")))
        done.append(n)

    async with anyio.create_task_group() as group:
        async with store.lifespan():
            with writer_held_up(tmp_path):
                for n in range(50):
                    group.start_soon(one, n)
                await until_outstanding(store, 50)
        assert store.outstanding == 0
    assert sorted(done) == list(range(50))
    async with store.lifespan():
        assert len(await store.live()) == 50
