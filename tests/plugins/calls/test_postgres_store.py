"""The PostgreSQL store: batches, the one commit that fails, ownership, lost connections."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import cast
from urllib.parse import quote

import anyio
import psycopg
import pytest
from sqlalchemy import Engine, event
from tests.ports import reserve_port

from voicecall.errors import ConfigError, DuplicateKey, StoreError
from voicecall.model import Speaker, TranscriptEntry
from voicecall.seam import SystemSeam
from voicecall.store import Approval, Commit, DialReservation, RecordedReply, StoredEvent, TurnRow
from voicecall_calls.store.postgres import PostgresStore
from voicecall_calls.store.server import ServerAddress
from voicecall_testing.contracts.records import call_record

from .committing import together
from .postgres_server import Server

pytestmark = [pytest.mark.integration, pytest.mark.postgres, pytest.mark.anyio]


@pytest.fixture
async def store(database_url: str, tmp_path: Path) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(database_url, tmp_path, SystemSeam())
    async with store.lifespan():
        yield store


@contextmanager
def writer_held_up(url: str) -> Iterator[None]:
    """Hold a lock that the writer's first statement waits for."""
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE last_batch IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def counted_commits() -> Iterator[list[object]]:
    seen: list[object] = []

    def committed(connection: object) -> None:
        seen.append(connection)

    event.listen(Engine, "commit", committed)
    try:
        yield seen
    finally:
        event.remove(Engine, "commit", committed)


# --- batches ---------------------------------------------------------------------------------


async def test_waiting_commits_share_a_transaction(store: PostgresStore, database_url: str) -> None:
    commits = [Commit(record=call_record(f"c{n}"), processed_keys=[f"k{n}"]) for n in range(100)]
    with counted_commits() as seen:
        assert await together(store, writer_held_up(database_url), commits) == [None] * 100
    # What the writer took before it was held up, and all the rest.
    assert 1 <= len(seen) <= 2
    assert len(await store.live()) == 100


async def test_only_the_guilty_one_fails(store: PostgresStore, database_url: str) -> None:
    await store.commit(Commit(record=call_record("old"), processed_keys=["taken"]))
    commits = [Commit(record=call_record(f"c{n}"), processed_keys=[f"k{n}"]) for n in range(20)]
    commits[7] = Commit(record=call_record("c7"), processed_keys=["k7", "taken"])
    commits[9] = Commit(record=call_record("c9", started_at=2**63, from_number="+15557654321"))
    commits[12] = Commit(record=call_record("c12").with_alias("id-of-old"))
    commits[15] = Commit(record=call_record("c15"), processed_keys=["k3"])
    # An index of PostgreSQL does not hold what is longer than a third of a page.
    commits[17] = Commit(processed_keys=[os.urandom(9000).hex()])
    # An adapter that is not checked by types may have keys that are no text.
    commits[19] = Commit(processed_keys=[cast("str", 19)])
    outcomes = await together(store, writer_held_up(database_url), commits)
    failed = {index: error for index, error in enumerate(outcomes) if error is not None}
    assert set(failed) == {7, 9, 12, 15, 17, 19}
    assert store.problems() == ()
    for index, key in ((7, "taken"), (15, "k3")):
        error = failed[index]
        assert isinstance(error, DuplicateKey)
        assert (error.kind, error.key) == ("processed", key)
    assert "belongs to another call" in str(failed[12])
    assert "7654321" not in str(failed[9])
    assert {record.call_id for record in await store.live()} == (
        {"old"} | {f"c{n}" for n in range(20)} - {"c7", "c9", "c12", "c15", "c17", "c19"}
    )
    assert not await store.is_processed("k7")


async def test_a_key_that_is_too_long_is_no_trouble_of_the_store(
    store: PostgresStore, database_url: str
) -> None:
    keys = ["a", os.urandom(9000).hex()]
    commits = [Commit(record=call_record(key[:9]), processed_keys=[key]) for key in keys]
    first, second = await together(store, writer_held_up(database_url), commits)
    assert first is None
    assert "index row" in str(second)
    assert store.problems() == ()


async def test_no_error_quotes_a_row(
    store: PostgresStore, database_url: str, postgres_server: Server
) -> None:
    postgres_server.execute("ALTER TABLE calls ADD CHECK (state <> 'ringing')", database_url)
    with pytest.raises(StoreError, match="violates check constraint") as caught:
        await store.commit(Commit(record=call_record(from_number="+15557654321")))
    assert "7654321" not in str(caught.value)


async def test_several_commits_of_one_call_in_a_batch(
    store: PostgresStore, database_url: str
) -> None:
    commits = [
        Commit(record=call_record(session_key=str(n)), events=[StoredEvent(n, "E", {"n": n})])
        for n in range(10)
    ]
    assert await together(store, writer_held_up(database_url), commits) == [None] * 10
    assert await store.load("call-1") == call_record(session_key="9")
    assert [stored.at for stored in await store.events("call-1")] == list(range(10))


async def test_every_value_comes_back(store: PostgresStore) -> None:
    odd = "a\x00\x01\x01\x02\x00\x02é\U0001f600"
    entry = TranscriptEntry(2**60, Speaker.USER, odd, complete=False)
    record = call_record(odd, from_number=odd, session_key=odd, transcript=(entry,))
    turn = TurnRow(call_id=odd, turn_id=odd, kind="reply", at=2**53, filler=True, failed=odd)
    reply = RecordedReply(odd, SystemSeam().now_ms(), 200, bytes(range(256)), odd, {odd: odd})
    approval = Approval("+15550001111", "approved", odd, 2**53, 2**53 + 1)
    reservation = DialReservation(odd, odd, 2**53)
    await store.commit(
        Commit(
            record=record,
            events=[StoredEvent(2**53, odd, {odd: odd})],
            processed_keys=[odd],
            reply=reply,
            reservation=reservation,
            turns=[turn],
            approvals=[approval],
        )
    )
    assert await store.load(odd) == record
    assert await store.events(odd) == [StoredEvent(2**53, odd, {odd: odd})]
    assert await store.turns(call_id=odd) == [turn]
    assert await store.reply(odd) == reply
    assert await store.reservation(odd) == reservation
    assert await store.approvals(approval.number) == [approval]
    assert await store.is_processed(odd)


async def test_a_question_that_fails_spoils_no_other(
    store: PostgresStore, database_url: str, postgres_server: Server
) -> None:
    await store.commit(Commit(record=call_record()))
    postgres_server.execute("ALTER TABLE events RENAME TO hidden", database_url)
    found: dict[str, object] = {}

    async def ask_events() -> None:
        try:
            await store.events("call-1")
        except StoreError as error:
            found["events"] = str(error)

    async def ask_call() -> None:
        found["call"] = await store.load("call-1")

    async with anyio.create_task_group() as group:
        for ask in (ask_call, ask_events, ask_call):
            group.start_soon(ask)
    assert found["call"] == call_record()
    assert 'relation "events" does not exist' in str(found["events"])


# --- the journal and owning ------------------------------------------------------------------


async def test_the_journal_is_written(database_url: str, tmp_path: Path) -> None:
    async with (store := PostgresStore(database_url, tmp_path, SystemSeam())).lifespan():
        await store.commit(Commit(record=call_record()))
    [line] = (tmp_path / "calls.jsonl").read_text().splitlines()
    assert json.loads(line)["callId"] == "call-1"


async def test_a_second_gateway_is_refused(
    store: PostgresStore, database_url: str, tmp_path: Path
) -> None:
    second = PostgresStore(database_url, tmp_path / "two", SystemSeam(), lock_seconds=0.2)
    with pytest.raises(
        StoreError, match=rf"another gateway \(voicecall pid {os.getpid()} on .*\) uses postgresql:"
    ):
        async with second.lifespan():
            pass
    await store.commit(Commit(record=call_record()))


OWNER = """
import sys, anyio
from pathlib import Path
from voicecall.seam import SystemSeam
from voicecall_calls.store.postgres import PostgresStore

async def main():
    async with PostgresStore(sys.argv[1], Path(sys.argv[2]), SystemSeam()).lifespan():
        print("open", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def test_a_gateway_that_was_killed_leaves_the_database(
    database_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", OWNER, database_url, str(tmp_path / "one")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        try:
            assert owner.stdout.readline() == b"open\n"
        finally:
            owner.kill()
    async with (store := PostgresStore(database_url, tmp_path, SystemSeam())).lifespan():
        await store.commit(Commit(record=call_record()))


async def test_two_databases_do_not_disturb_each_other(
    store: PostgresStore, postgres_server: Server, tmp_path: Path
) -> None:
    other = PostgresStore(postgres_server.new_database(), tmp_path / "two", SystemSeam())
    async with other.lifespan():
        await other.commit(Commit(record=call_record()))
    assert await store.live() == []


# --- lost connections ------------------------------------------------------------------------

_ALL_OTHERS = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def test_connections_that_were_lost_are_made_anew(
    store: PostgresStore, database_url: str, postgres_server: Server, tmp_path: Path
) -> None:
    await store.commit(Commit(record=call_record("a"), processed_keys=["a"]))
    postgres_server.execute(_ALL_OTHERS, database_url)
    await store.commit(Commit(record=call_record("b"), processed_keys=["b"]))
    assert await store.is_processed("b")
    second = PostgresStore(database_url, tmp_path / "two", SystemSeam(), lock_seconds=0.2)
    with pytest.raises(StoreError, match="another gateway"):
        async with second.lifespan():
            pass


@contextmanager
def cut_at_commit(
    server: Server, url: str, *, after: bool, which: Sequence[int] = (1,)
) -> Iterator[list[str]]:
    """Lose the connection at ``which`` of the writer's next COMMITs: before the server gets it, or
    after it did and before its answer comes."""
    cuts: list[str] = []
    numbers = count(1)

    def on_commit(connection: object) -> None:
        made = connection.connection.driver_connection  # type: ignore[attr-defined]
        if made.read_only or next(numbers) not in which:
            return
        cuts.append("cut")
        if after:
            made.commit()
            # Else it would know that there is nothing to commit, and not miss the connection.
            made.execute("SELECT 1")
        server.execute(_ALL_OTHERS, url)

    event.listen(Engine, "commit", on_commit)
    try:
        yield cuts
    finally:
        event.remove(Engine, "commit", on_commit)


@pytest.mark.parametrize("after", [False, True])
async def test_a_commit_whose_answer_was_lost_is_stored_once(
    store: PostgresStore, database_url: str, postgres_server: Server, after: bool
) -> None:
    await store.commit(Commit(processed_keys=["before"]))
    commit = Commit(record=call_record(), events=[StoredEvent(1, "E", {})], processed_keys=["k"])
    with cut_at_commit(postgres_server, database_url, after=after) as cuts:
        await store.commit(commit)
    assert cuts == ["cut"]
    assert await store.events("call-1") == [StoredEvent(1, "E", {})]
    with pytest.raises(DuplicateKey):
        await store.commit(Commit(processed_keys=["k"]))


async def test_a_commit_that_is_lost_twice_is_not_stored(
    store: PostgresStore, database_url: str, postgres_server: Server
) -> None:
    commit = Commit(record=call_record(), processed_keys=["k"])
    # Between the two it is looked up what became of the first.
    with cut_at_commit(postgres_server, database_url, after=False, which=(1, 3)) as cuts:
        with pytest.raises(StoreError, match="the commit was not stored"):
            await store.commit(commit)
    assert len(cuts) == 2
    assert not await store.is_processed("k")
    await store.commit(commit)
    assert await store.load("call-1") == call_record()


async def test_an_outcome_that_nobody_can_tell_is_called_so(
    tmp_path: Path, postgres_server: Server
) -> None:
    url = postgres_server.new_database()
    async with (store := PostgresStore(url, tmp_path, SystemSeam())).lifespan():
        stopped: list[object] = []

        def stop(connection: object) -> None:
            if not stopped:
                stopped.append(connection)
                postgres_server.stop()

        event.listen(Engine, "commit", stop)
        try:
            with pytest.raises(StoreError, match="the commit may or may not be stored"):
                await store.commit(Commit(processed_keys=["k"]))
        finally:
            event.remove(Engine, "commit", stop)
            postgres_server.start()
        assert not await store.is_processed("k")
        await store.commit(Commit(processed_keys=["k"]))


async def test_a_gateway_that_lost_the_database_writes_no_more(
    store: PostgresStore, database_url: str, postgres_server: Server, tmp_path: Path
) -> None:
    second = PostgresStore(database_url, tmp_path / "two", SystemSeam())
    postgres_server.execute(_ALL_OTHERS, database_url)
    async with second.lifespan():
        await second.commit(Commit(record=call_record("theirs")))
    with pytest.raises(StoreError, match="another gateway wrote to the database"):
        await store.commit(Commit(record=call_record("mine")))
    assert "another gateway wrote to the database" in "".join(store.problems())
    assert [record.call_id for record in await store.live()] == ["theirs"]


async def test_a_server_that_stops_and_comes_back(tmp_path: Path, postgres_server: Server) -> None:
    url = postgres_server.new_database()
    async with (store := PostgresStore(url, tmp_path, SystemSeam())).lifespan():
        await store.commit(Commit(record=call_record("a")))
        postgres_server.stop()
        for _ in range(2):
            with pytest.raises(StoreError, match="the commit was not stored"):
                await store.commit(Commit(record=call_record("b")))
        with pytest.raises(StoreError):
            await store.live()
        postgres_server.start()
        await store.commit(Commit(record=call_record("c")))
        assert [record.call_id for record in await store.live()] == ["a", "c"]


# --- what cannot be used ---------------------------------------------------------------------


async def test_a_database_of_another_encoding(postgres_server: Server, tmp_path: Path) -> None:
    url = postgres_server.new_database("ENCODING 'LATIN1' TEMPLATE template0")
    with pytest.raises(StoreError, match="must have the encoding UTF8"):
        async with PostgresStore(url, tmp_path, SystemSeam()).lifespan():
            pass


async def test_a_database_that_is_not_there(postgres_server: Server, tmp_path: Path) -> None:
    url = postgres_server.url("nowhere").replace("tester@", "tester:secret@")
    store = PostgresStore(url, tmp_path, SystemSeam())
    with pytest.raises(StoreError, match='database "nowhere" does not exist') as caught:
        async with store.lifespan():
            pass
    assert "secret" not in f"{caught.value} {store!r}"


async def test_a_server_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    port = reserve_port()
    store = PostgresStore(f"postgresql://127.0.0.1:{port}/calls", tmp_path, SystemSeam())
    with pytest.raises(StoreError, match="Is the server running") as told:
        async with store.lifespan():
            pass
    assert "\n" not in str(told.value)


async def test_a_newer_schema_is_refused(
    database_url: str, postgres_server: Server, tmp_path: Path
) -> None:
    async with PostgresStore(database_url, tmp_path, SystemSeam()).lifespan():
        postgres_server.execute("UPDATE schema_version SET version = 99", database_url)
    with pytest.raises(StoreError, match=r"/calls\d+: the schema has version 99"):
        async with PostgresStore(database_url, tmp_path, SystemSeam()).lifespan():
            pass


def test_a_url_says_how_long_is_waited() -> None:
    params = ServerAddress.parse("postgresql://u:secret@h/d?connect_timeout=3").params
    assert params["connect_timeout"] == "3"
    assert int(params["keepalives_idle"]) <= 30


def test_a_url_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        PostgresStore("postgresql://u:secret@h/d?no_such_key=1", tmp_path, SystemSeam())
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "password",
    ["one@secret", "one/secret", "12/secret", "secret/@@", "@secret", "one@two/secret"],
)
def test_a_password_with_signs_of_a_url_is_not_quoted(tmp_path: Path, password: str) -> None:
    with pytest.raises(ConfigError, match="%40 and %2F") as caught:
        PostgresStore(f"postgresql://u:{password}@127.0.0.1/calls", tmp_path, SystemSeam())
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    written = quote(password, safe="")
    address = ServerAddress.parse(f"postgresql://u:{written}@h1:1,h2:2/calls?sslmode=require")
    assert (address.name, address.params["password"]) == (
        "postgresql://h1,h2:1,2/calls",
        password,
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///calls?host=/run/postgresql",
        "postgresql://u@[::1]:5432/a@b",
        "postgresql://u:p@h/a%40b",
    ],
)
def test_hosts_and_databases_of_other_forms(url: str) -> None:
    assert ServerAddress.parse(url).name.startswith("postgresql://")


async def test_commits_wait_for_the_disk(
    database_url: str, postgres_server: Server, tmp_path: Path
) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    store = PostgresStore(database_url, tmp_path, SystemSeam())
    with store._connected(writing=True) as connection, connection.begin():
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
