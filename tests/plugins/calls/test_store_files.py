"""The store's files: ownership, modes, damage, schema versions, pruning, the journal."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, text

from voicecall.errors import DuplicateKey, StoreError
from voicecall.model import CallRecord, CallState, DeadlineKind, Speaker, TranscriptEntry
from voicecall.seam import SystemSeam
from voicecall.store import Commit, DialReservation, StoredEvent, TurnRow
from voicecall_calls.store import SqliteStore
from voicecall_calls.store.database import naming
from voicecall_calls.store.journal import Journal
from voicecall_calls.store.pruning import ROWS_PER_STEP
from voicecall_calls.store.schema import STEPS, prepare_schema
from voicecall_calls.store.snapshot import journal_line
from voicecall_calls.store.sqlite import connected
from voicecall_testing.contracts.records import call_record, ended

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


def new_store(directory: Path, **options: Any) -> SqliteStore:
    return SqliteStore(directory, SystemSeam(), **options)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def as_line(record: CallRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(journal_line(record))
    return found


# --- ownership and modes ---------------------------------------------------------------------


async def test_another_store_of_this_process_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("1234567890\n")
    async with new_store(tmp_path).lifespan():
        with pytest.raises(StoreError, match=f"another gateway .pid {os.getpid()}. uses"):
            async with new_store(tmp_path).lifespan():
                pass
    async with (store := new_store(tmp_path)).lifespan():
        assert await store.live() == []


OWNER = """
import sys, anyio
from pathlib import Path
from voicecall.seam import SystemSeam
from voicecall_calls.store import SqliteStore

async def main():
    async with SqliteStore(Path(sys.argv[1]), SystemSeam()).lifespan():
        print("open", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == b"open\n"
            with pytest.raises(StoreError, match=f"another gateway .pid {owner.pid}. uses"):
                async with new_store(tmp_path).lifespan():
                    pass
        finally:
            owner.send_signal(signal.SIGKILL)
    async with (store := new_store(tmp_path)).lifespan():
        await store.commit(Commit(record=call_record()))


async def test_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "calls"
    async with (store := new_store(directory)).lifespan():
        await store.commit(Commit(record=call_record()))
        # The journal is written after the answer; the writer's next answer shows that it was.
        await store.commit(Commit())
        assert mode(directory) == 0o700
        names = {path.name: mode(path) for path in directory.iterdir()}
    assert set(names) >= {"calls.db", "calls.db-wal", "calls.jsonl", "lock"}
    assert set(names.values()) == {0o600}


@pytest.mark.parametrize("name", ["calls.db", "calls.jsonl"])
async def test_a_file_with_a_loose_mode_is_tightened(tmp_path: Path, name: str) -> None:
    for call_id in ("a", "b"):
        async with (store := new_store(tmp_path)).lifespan():
            await store.commit(Commit(record=call_record(call_id)))
        if call_id == "a":
            (tmp_path / name).chmod(0o644)
    assert mode(tmp_path / name) == 0o600


@pytest.mark.parametrize(("fsync", "level"), [(True, 2), (False, 1)])
def test_commits_wait_for_the_disk(tmp_path: Path, fsync: bool, level: int) -> None:
    store = new_store(tmp_path, **({} if fsync else {"fsync": False}))
    with store._connected(writing=True) as connection, connection.begin():
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == level


# --- damage ----------------------------------------------------------------------------------


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "calls.db").write_bytes(b"not a database\n" * 500)
    with pytest.raises(StoreError, match=r"calls\.db: file is not a database; use a backup"):
        async with new_store(tmp_path).lifespan():
            pass
    assert (tmp_path / "calls.db").read_bytes().startswith(b"not a database")


async def test_half_a_database(tmp_path: Path) -> None:
    async with new_store(tmp_path).lifespan():
        pass
    os.truncate(tmp_path / "calls.db", 8192)
    with pytest.raises(StoreError, match=r"calls\.db: .* is malformed; use a backup"):
        async with new_store(tmp_path).lifespan():
            pass
    assert (tmp_path / "calls.db").stat().st_size == 8192


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_database_that_is_gone_while_it_is_open_is_told(
    tmp_path: Path, replaced: bool
) -> None:
    file = tmp_path / "calls.db"
    async with (store := new_store(tmp_path)).lifespan():
        assert list(store.problems()) == []
        file.rename(tmp_path / "moved.db")
        if replaced:
            file.touch()
        (problem,) = store.problems()
        assert problem.startswith(f"{file} was moved, deleted or replaced: calls still go into")
        # Calls that are up are served.
        await store.commit(Commit(record=call_record()))
        (tmp_path / "moved.db").replace(file)
        assert list(store.problems()) == []
    file.unlink()
    assert list(store.problems()) == []


async def test_a_companion_that_cannot_be_used(tmp_path: Path) -> None:
    async with new_store(tmp_path).lifespan():
        pass
    (tmp_path / "calls.db-wal").mkdir()
    with pytest.raises(StoreError, match=r"calls\.db: unable to open .* next to it \(-wal, -shm\)"):
        async with new_store(tmp_path).lifespan():
            pass


def test_a_file_of_another_user_is_told_with_what_to_do() -> None:
    with pytest.raises(StoreError) as told, naming("the store"):
        raise PermissionError(errno.EACCES, "Permission denied", "/state/voice-calls/lock")
    assert str(told.value) == (
        "/state/voice-calls/lock: Permission denied; it must belong to the gateway's user, and"
        " commands must be run as that user"
    )


async def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("")
    with pytest.raises(StoreError, match=str(path)):
        async with new_store(path).lifespan():
            pass


async def test_a_database_that_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "calls.db").mkdir()
    with pytest.raises(StoreError, match=r"calls\.db"):
        async with new_store(tmp_path).lifespan():
            pass
    (tmp_path / "calls.db").rmdir()
    async with (store := new_store(tmp_path)).lifespan():
        assert await store.live() == []


async def test_a_call_with_an_unreadable_transcript_is_left_out_of_lists(tmp_path: Path) -> None:
    said = (TranscriptEntry(1, Speaker.USER, "Hello?"),)
    async with (store := new_store(tmp_path)).lifespan():
        for call_id in ("good", "bad"):
            await store.commit(Commit(record=replace(call_record(call_id), transcript=said)))
        with sqlite3.connect(tmp_path / "calls.db") as other:
            other.execute("UPDATE transcript SET speaker = 'nobody' WHERE call_id = 'bad'")
        other.close()
        assert [record.call_id for record in await store.live()] == ["good"]
        found: dict[str, object] = {}

        async def load(call_id: str) -> None:
            try:
                found[call_id] = await store.load(call_id)
            except StoreError as error:
                found[call_id] = str(error)

        async with anyio.create_task_group() as tasks:
            for call_id in ("good", "bad"):
                tasks.start_soon(load, call_id)
        assert found["good"] == replace(call_record("good"), transcript=said)
        assert "cannot be read" in str(found["bad"])


@pytest.mark.parametrize("document", ["{}", "[]", "5", "not json", '{"deadlines": []}'])
async def test_an_unreadable_record_is_left_out_of_lists(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, document: str
) -> None:
    async with (store := new_store(tmp_path)).lifespan():
        for call_id in ("good", "bad"):
            await store.commit(Commit(record=call_record(call_id)))
        with sqlite3.connect(tmp_path / "calls.db") as other:
            other.execute("UPDATE calls SET document = ? WHERE call_id = 'bad'", [document])
        other.close()
        assert [record.call_id for record in await store.live()] == ["good"]
        assert "bad" in caplog.text
        with pytest.raises(StoreError, match="cannot be read"):
            await store.load("bad")


async def test_a_question_that_fails_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    async with (store := new_store(tmp_path)).lifespan():
        event = StoredEvent(1, "E", {"n": 1})
        for call_id in ("good", "bad"):
            await store.commit(Commit(record=call_record(call_id), events=[event]))
        with sqlite3.connect(tmp_path / "calls.db") as other:
            other.execute("UPDATE events SET data = 'x' WHERE call_id = 'bad'")
        other.close()
        answers: dict[str, object] = {}

        async def ask(call_id: str) -> None:
            try:
                answers[call_id] = await store.events(call_id)
            except StoreError as error:
                answers[call_id] = type(error)

        async with anyio.create_task_group() as group:
            for call_id in ("good", "bad", "\ud800"):
                group.start_soon(ask, call_id)
    assert answers == {"good": [event], "bad": StoreError, "\ud800": StoreError}


async def test_of_many_calls_each_has_its_transcript(tmp_path: Path) -> None:
    said = (TranscriptEntry(1, Speaker.USER, "Hello?"),)
    records = [call_record(f"c{n:04}", started_at=n, transcript=said) for n in range(1002)]
    async with (store := new_store(tmp_path, fsync=False)).lifespan():
        async with anyio.create_task_group() as tasks:
            for record in records:
                tasks.start_soon(store.commit, Commit(record=record))
        assert await store.live() == records
        assert await store.recent(2000) == records[::-1]


# --- versions --------------------------------------------------------------------------------


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    async with new_store(tmp_path).lifespan():
        pass
    with sqlite3.connect(tmp_path / "calls.db") as other:
        other.execute("UPDATE schema_version SET version = version + 1")
    other.close()
    newer = len(STEPS) + 2
    with pytest.raises(StoreError, match=rf"calls\.db: the schema has version {newer}"):
        async with new_store(tmp_path).lifespan():
            pass


@pytest.mark.parametrize(
    "damage", ["DELETE FROM schema_version", "UPDATE schema_version SET version = 0"]
)
async def test_a_schema_without_a_version_is_refused(tmp_path: Path, damage: str) -> None:
    async with new_store(tmp_path).lifespan():
        pass
    with sqlite3.connect(tmp_path / "calls.db") as other:
        other.execute(damage)
    other.close()
    with pytest.raises(StoreError, match=r"calls\.db: the schema has no version: the database is"):
        async with new_store(tmp_path).lifespan():
            pass


def test_an_older_schema_is_upgraded_step_by_step(tmp_path: Path) -> None:
    def second(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE calls ADD COLUMN extra TEXT"))

    def third(connection: Connection) -> None:
        connection.execute(text("UPDATE calls SET extra = 'filled'"))

    def broken(connection: Connection) -> None:
        connection.execute(text("UPDATE calls SET extra = 'spoilt'"))
        raise StoreError("cannot")

    with connected(tmp_path / "calls.db", writing=True) as connection:
        assert prepare_schema(connection, steps=()) == 1
        with connection.begin():
            connection.execute(
                text("INSERT INTO calls VALUES ('c', 'p', 'active', 1, 0, NULL, '1', '2', '{}', 0)")
            )
        assert prepare_schema(connection, steps=(second, third)) == 3
        assert prepare_schema(connection, steps=(second, third)) == 3
        with pytest.raises(StoreError, match="cannot"):
            prepare_schema(connection, steps=(second, third, broken))
        with connection.begin():
            assert connection.execute(text("SELECT extra FROM calls")).scalar_one() == "filled"
            version = connection.execute(text("SELECT version FROM schema_version")).scalar_one()
            assert version == 3


async def test_the_tables_are_what_their_readers_are_told(tmp_path: Path) -> None:
    """docs/how-to/read-the-store.md"""
    said = (TranscriptEntry(5, Speaker.BOT, "Hel", complete=False),)
    later = {DeadlineKind.RING: 700, DeadlineKind.PROBE: 600, DeadlineKind.MAX_DURATION: 900}
    async with (store := new_store(tmp_path)).lifespan():
        for record in (
            *(call_record(call_id) for call_id in ("over", "live", "same")),
            call_record("live", deadlines=later),
            ended("over", 7),
        ):
            await store.commit(Commit(record=record))
        await store.commit(Commit(record=call_record("same", transcript=said), transcript_from=0))

    def rows(query: str) -> list[Any]:
        return reader.execute(query).fetchall()

    with contextlib.closing(sqlite3.connect(tmp_path / "calls.db")) as reader:
        assert rows("SELECT call_id, kind, at FROM deadlines WHERE call_id = 'live'") == [
            ("live", "probe", 600)
        ]
        assert rows("SELECT call_id FROM deadlines ORDER BY call_id") == [("live",), ("same",)]
        assert rows("SELECT call_id, provider_call_id FROM call_aliases ORDER BY call_id") == [
            (call_id, f"id-of-{call_id}") for call_id in ("live", "over", "same")
        ]
        assert rows("SELECT call_id, idx, at, speaker, text, complete FROM transcript") == [
            ("same", 0, 5, "bot", "Hel", 0)
        ]
        states = rows("SELECT call_id, state, live, refused FROM calls ORDER BY call_id")
        assert states == [
            ("live", "ringing", 1, 0),
            ("over", "completed", 0, 0),
            ("same", "ringing", 1, 0),
        ]


async def test_pruning_in_steps_keeps_the_newest_calls(tmp_path: Path) -> None:
    async with (store := new_store(tmp_path)).lifespan():
        for n in range(450):
            await store.commit(Commit(record=ended(f"c{n:03}", n)))
        await store.commit(Commit(record=call_record("live", started_at=0)))
        assert await store.prune(450, keep_calls=3, keep_days=1) == 447
        kept = {record.call_id for record in await store.recent(500)}
    assert kept == {"live", "c447", "c448", "c449"}


async def test_pruning_that_fails_changes_nothing_and_disturbs_nobody(tmp_path: Path) -> None:
    turn = TurnRow(call_id="over", turn_id="t", kind="reply", at=1)
    async with (store := new_store(tmp_path)).lifespan():
        await store.commit(Commit(record=ended("over", 1), turns=[turn]))
        with contextlib.closing(sqlite3.connect(tmp_path / "calls.db")) as other:
            other.execute("ALTER TABLE turns RENAME TO hidden")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.commit, Commit(record=call_record("live")))
                with pytest.raises(StoreError, match=r"calls\.db: no such table"):
                    await store.prune(2, keep_calls=0, keep_days=1)
            other.execute("ALTER TABLE hidden RENAME TO turns")
        assert {record.call_id for record in await store.recent(9)} == {"over", "live"}
        assert await store.find("carrier", "id-of-over") == ended("over", 1)
        assert await store.prune(2, keep_calls=0, keep_days=1) == 1


async def test_what_belongs_to_no_call_goes_when_it_is_old(tmp_path: Path) -> None:
    day_ms = 24 * 3600 * 1000
    now = SystemSeam().now_ms()
    young = now - day_ms
    async with (store := new_store(tmp_path)).lifespan():
        for at in (now - 3 * day_ms, young):
            turn = TurnRow(call_id="gone", turn_id=str(at), kind="reply", at=at)
            await store.commit(Commit(events=[StoredEvent(at, "E", {})], turns=[turn]))
        await store.prune(now, keep_calls=9, keep_days=2)
        assert [turn.at for turn in await store.turns()] == [young]
    with contextlib.closing(sqlite3.connect(tmp_path / "calls.db")) as reader:
        assert reader.execute("SELECT at FROM events").fetchall() == [(young,)]


async def test_keys_outlive_their_call_for_as_long_as_they_may_come_again(tmp_path: Path) -> None:
    hour_ms = 3600 * 1000
    now = SystemSeam().now_ms()
    dialled = DialReservation("dial", "over", now - 24 * hour_ms)
    async with (store := new_store(tmp_path)).lifespan():
        await store.commit(
            Commit(record=ended("over", now), processed_keys=["key"], reservation=dialled)
        )
        kept = []
        for hours, days in ((23, 3), (25, 3), (25, 1)):
            await store.prune(now + hours * hour_ms, keep_calls=0, keep_days=days)
            kept.append((await store.is_processed("key"), await store.reservation("dial")))
        assert await store.load("over") is None
    assert kept == [(True, dialled), (False, dialled), (False, None)]


async def test_commits_get_their_turn_while_loose_rows_are_looked_for(tmp_path: Path) -> None:
    day_ms = 24 * 3600 * 1000
    now = SystemSeam().now_ms()
    many = 6 * ROWS_PER_STEP + 3
    done = 0
    async with (store := new_store(tmp_path, fsync=False)).lifespan():
        keys = [f"key {n}" for n in range(many)]
        turn = TurnRow(call_id="gone", turn_id="", kind="reply", at=now)
        turns = [replace(turn, turn_id=str(n)) for n in range(ROWS_PER_STEP + 1)]
        stays = replace(turn, call_id="stays")
        await store.commit(Commit(processed_keys=keys, turns=[*turns, stays]))
        await store.commit(Commit(record=call_record("stays"), processed_keys=["key of stays"]))

        async def commit() -> None:
            nonlocal done
            while True:
                await store.commit(Commit(record=call_record("stays")))
                done += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit)
            await store.prune(now + 3 * day_ms, keep_calls=9, keep_days=1)
            tasks.cancel_scope.cancel()
        assert done > 4
        assert not any(
            [await store.is_processed(key) for key in (keys[0], keys[many // 2], keys[-1])]
        )
        assert await store.is_processed("key of stays")
        assert list(await store.turns(limit=many)) == [stays]


# --- the journal -----------------------------------------------------------------------------


async def test_the_journal_ends_with_the_state_of_the_database(tmp_path: Path) -> None:
    async with (store := new_store(tmp_path)).lifespan():
        for call_id in ("a", "b"):
            record = call_record(call_id)
            for n in range(5):
                entry = TranscriptEntry(n, Speaker.USER, f"line {n}\nüber", complete=n != 3)
                record = replace(
                    record, transcript=(*record.transcript, entry), state=CallState.LISTENING
                )
                await store.commit(Commit(record=record, transcript_from=n))
        await store.commit(Commit(record=ended("b", 7, transcript=record.transcript)))
        stored = {record.call_id: record for record in await store.recent(9)}
    newest = {line["callId"]: line for line in lines(tmp_path / "calls.jsonl")}
    assert newest == {call_id: as_line(record) for call_id, record in stored.items()}


async def test_the_journal_tells_nothing_that_is_not_stored(tmp_path: Path) -> None:
    async with (store := new_store(tmp_path)).lifespan():
        await store.commit(Commit(record=call_record("a"), processed_keys=["k"]))
        with pytest.raises(DuplicateKey):
            await store.commit(Commit(record=call_record("b"), processed_keys=["k"]))
    assert [line["callId"] for line in lines(tmp_path / "calls.jsonl")] == ["a"]


async def test_a_journal_that_was_moved_away_or_deleted_is_begun_anew(tmp_path: Path) -> None:
    journal, moved = tmp_path / "calls.jsonl", tmp_path / "elsewhere"
    async with (store := new_store(tmp_path)).lifespan():
        await store.commit(Commit(record=call_record("a")))
        # The lines are written after the commit; the next question to the writer comes later.
        await store.prune(0, keep_calls=9, keep_days=1)
        journal.rename(moved)
        await store.commit(Commit(record=call_record("b")))
        await store.prune(0, keep_calls=9, keep_days=1)
        assert [line["callId"] for line in lines(journal)] == ["b"]
        assert mode(journal) == 0o600
        journal.unlink()
        await store.commit(Commit(record=call_record("c")))
    assert [line["callId"] for line in lines(moved)] == ["a"]
    assert [line["callId"] for line in lines(journal)] == ["c"]


async def test_the_journal_is_rotated(tmp_path: Path) -> None:
    async with (store := new_store(tmp_path, journal_bytes=4000)).lifespan():
        for n in range(30):
            await store.commit(Commit(record=call_record(f"c{n}")))
    now, before = lines(tmp_path / "calls.jsonl"), lines(tmp_path / "calls.jsonl.1")
    assert now[-1]["callId"] == "c29"
    assert int(before[-1]["callId"][1:]) + 1 == int(now[0]["callId"][1:])
    for name in ("calls.jsonl", "calls.jsonl.1"):
        assert (tmp_path / name).stat().st_size <= 4000
        assert mode(tmp_path / name) == 0o600


async def test_a_failing_journal_is_logged_once_and_retried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calls.jsonl"
    path.mkdir()
    async with (store := new_store(tmp_path)).lifespan():
        for n in range(5):
            await store.commit(Commit(record=call_record(f"c{n}")))
        await store.commit(Commit(record=call_record("c0", session_key="newest")))
        assert len(await store.live()) == 5
        await store.commit(Commit())
        assert [r.levelno for r in caplog.records] == [logging.ERROR]
        path.rmdir()
        await store.commit(Commit(record=call_record("c9")))
    assert [line["callId"] for line in lines(path)] == ["c1", "c2", "c3", "c4", "c0", "c9"]
    assert lines(path)[4]["sessionKey"] == "newest"


async def test_half_a_line_is_dropped_at_opening(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    whole = [json.dumps({"callId": "x", "pad": "p" * 70_000}), json.dumps({"callId": "y"})]
    path.write_text("\n".join([*whole, '{"callId": "tor']))
    async with (store := new_store(tmp_path)).lifespan():
        await store.commit(Commit(record=call_record("z")))
    assert [line["callId"] for line in lines(path)] == ["x", "y", "z"]


async def test_a_turn_is_a_line_of_its_call(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"

    def turn(call_id: str, turn_id: str) -> Commit:
        return Commit(turns=(TurnRow(call_id=call_id, turn_id=turn_id, kind="reply", at=5),))

    async with (store := new_store(tmp_path)).lifespan():
        await store.commit(Commit(record=call_record("a")))
        await store.commit(turn("a", "one"))
        # Of a call that this process has not seen yet: told with its next record.
        await store.commit(turn("b", "two"))
        await store.commit(Commit(record=call_record("b")))
        await store.commit(Commit(record=ended("a", 7)))
        await store.commit(turn("a", "three"))
    found = [
        (line["callId"], line["state"], line["metadata"].get("lastTurnId")) for line in lines(path)
    ]
    live, over = call_record("a").state, ended("a", 7).state
    assert found == [
        ("a", live, None),
        ("a", live, "one"),
        ("b", live, "two"),
        ("a", over, "one"),
        ("a", over, "three"),
    ]


@pytest.mark.parametrize("size", [65_535, 65_536, 200_000])
def test_a_long_half_line_is_dropped(tmp_path: Path, size: int) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text('{"callId": "x"}\n' + "t" * size)
    journal = Journal(path, max_bytes=10**6)
    journal.append([call_record("y")])
    journal.close()
    assert [line["callId"] for line in lines(path)] == ["x", "y"]
    path.write_text("t" * 200_000)
    journal.append([call_record("z")])
    journal.close()
    assert [line["callId"] for line in lines(path)] == ["z"]


def test_a_journal_that_cannot_be_rotated_grows_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, in_the_way = tmp_path / "calls.jsonl", tmp_path / "calls.jsonl.1"
    in_the_way.mkdir()
    journal = Journal(path, max_bytes=2000)
    for n in range(20):
        journal.append([call_record(f"c{n}")])
    assert [line["callId"] for line in lines(path)] == [f"c{n}" for n in range(20)]
    assert [(r.levelno, "keeps growing" in r.message) for r in caplog.records] == [
        (logging.ERROR, True)
    ]
    in_the_way.rmdir()
    journal.append([call_record("last")])
    assert [line["callId"] for line in lines(path)] == ["last"]
    assert len(lines(in_the_way)) == 20
    # It is logged again when it happens again.
    in_the_way.unlink()
    in_the_way.mkdir()
    for n in range(20):
        journal.append([call_record(f"c{n}")])
    journal.close()
    assert ["keeps growing" in record.message for record in caplog.records] == [True, True]


def test_a_journal_that_is_rotated_with_every_line_keeps_each_and_one_file_open(
    tmp_path: Path,
) -> None:
    path = tmp_path / "calls.jsonl"
    journal = Journal(path, max_bytes=1)
    before = len(os.listdir("/dev/fd"))
    for n in range(20):
        journal.append([call_record(f"c{n}")])
        assert [line["callId"] for line in lines(path)] == [f"c{n}"]
        aside = path.with_name("calls.jsonl.1")
        assert (
            [line["callId"] for line in lines(aside)] == [f"c{n - 1}"] if n else not aside.exists()
        )
    assert len(os.listdir("/dev/fd")) == before + 1
    journal.close()
    assert len(os.listdir("/dev/fd")) == before


def test_a_journal_that_cannot_be_written_keeps_the_newest_thousand_calls(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.mkdir()
    journal = Journal(path, max_bytes=10**7)
    journal.append([call_record(f"c{n}") for n in range(1002)])
    path.rmdir()
    journal.append([call_record("c5")])
    journal.close()
    wanted = [f"c{n}" for n in (*range(2, 5), *range(6, 1002), 5)]
    assert [line["callId"] for line in lines(path)] == wanted


def test_a_journal_tells_each_time_when_it_cannot_be_written_and_tries_again_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "calls.jsonl"
    journal = Journal(path, max_bytes=10**6)
    for call_id in ("a", "b"):
        path.mkdir()
        for _ in range(2):
            journal.append([call_record(call_id)])
        path.rmdir()
        journal.close()
        assert [line["callId"] for line in lines(path)] == [call_id]
        path.unlink()
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


def test_a_journal_forgets_the_calls_of_which_nothing_came_for_longest(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    journal = Journal(path, max_bytes=10**7)
    journal.append([call_record(f"c{n}") for n in range(501)])
    journal.append([call_record("c1"), call_record("new")])
    told = len(lines(path))
    for call_id in ("c0", "c2", "c1", "c3"):
        journal.append([TurnRow(call_id=call_id, turn_id="t", kind="reply", at=5)])
    journal.close()
    assert [line["callId"] for line in lines(path)[told:]] == ["c1", "c3"]


def test_a_write_that_breaks_off_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calls.jsonl"
    journal = Journal(path, max_bytes=10**6)
    journal.append([call_record("a")])
    real = os.write
    calls = 0

    def full_disk(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return real(fd, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full_disk)
        journal.append([call_record("b")])
    assert [line["callId"] for line in lines(path)] == ["a"]
    journal.append([call_record("c")])
    journal.close()
    assert [line["callId"] for line in lines(path)] == ["a", "b", "c"]
