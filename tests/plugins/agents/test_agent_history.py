"""The store of conversation histories: order, expiry, restarts, file modes and damage."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from voicecall.errors import StoreError
from voicecall.seam import SystemSeam
from voicecall_agents.history import HistoryTurn, SqliteHistory

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def no_umask() -> Iterator[None]:
    """Files get the mode that they are created with."""
    before = os.umask(0)
    yield
    os.umask(before)


def store(directory: Path) -> SqliteHistory:
    return SqliteHistory(directory / "agents" / "history.db", SystemSeam())


class LaterSeam(SystemSeam):
    """``days`` have passed, and the wall clock is another ``ahead`` days ahead."""

    days = 0.0
    ahead = 0.0

    def now_ms(self) -> int:
        return super().now_ms() + round((self.days + self.ahead) * 24 * 3600 * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.days * 24 * 3600


def turn(number: int, *messages: str) -> HistoryTurn:
    return HistoryTurn(f"t{number}", messages or (f"question {number}", f"answer {number}"))


async def test_turns_come_back_in_order_after_a_restart(tmp_path: Path) -> None:
    history = store(tmp_path)
    for number in range(3):
        async with history.open():
            await history.put("a", turn(number), 10)
            await history.put("b", turn(7), 10)
    async with store(tmp_path).open() as _, history.open():
        assert await history.load("a", 10) == [turn(0), turn(1), turn(2)]
        assert await history.load("a", 2) == [turn(1), turn(2)]
        assert await history.load("a", 0) == []
        assert await history.load("b", 10) == [turn(7)]
        assert await history.load("nobody", 10) == []


async def test_a_turn_is_replaced_in_its_place(tmp_path: Path) -> None:
    history = store(tmp_path)
    async with history.open():
        for number in range(3):
            await history.put("a", turn(number), 10)
        await history.put("a", turn(1, "shorter"), 10)
        assert await history.load("a", 10) == [turn(0), turn(1, "shorter"), turn(2)]
        await history.put("a", HistoryTurn("t2", ()), 10)
        assert await history.load("a", 10) == [turn(0), turn(1, "shorter")]


async def test_old_turns_are_dropped_for_good(tmp_path: Path) -> None:
    history = store(tmp_path)
    async with history.open():
        for number in range(5):
            await history.put("a", turn(number), 2)
        assert await history.load("a", 100) == [turn(3), turn(4)]
        await history.put("a", turn(5), 0)
        assert await history.load("a", 100) == []


async def test_turns_are_forgotten_after_their_days(tmp_path: Path) -> None:
    seam = LaterSeam()
    history = SqliteHistory(tmp_path / "history.db", seam, keep_days=2)
    async with history.open():
        await history.put("a", turn(1), 10)
        await history.put("b", turn(1), 10)
        seam.days = 1.5
        await history.put("a", turn(2), 10)
        assert await history.load("a", 10) == [turn(1), turn(2)]
        seam.days = 2.5
        await history.put("c", turn(1), 10)
        assert await history.load("a", 10) == [turn(2)]
        assert await history.load("b", 10) == []
    seam.days = 4
    async with history.open():
        assert await history.load("a", 10) == []
        assert await history.load("c", 10) == [turn(1)]


async def test_a_clock_that_is_wrong_for_a_moment_forgets_nothing(tmp_path: Path) -> None:
    seam = LaterSeam()
    history = SqliteHistory(tmp_path / "history.db", seam, keep_days=2)
    async with history.open():
        await history.put("a", turn(1), 10)
    seam.ahead = 3660
    async with history.open():
        # As on a machine whose clock is set only after it has started.
        await history.put("b", turn(1), 10)
        seam.ahead = 0
        seam.days = 0.1
        await history.put("b", turn(2), 10)
        seam.ahead = 3660
        seam.days = 0.2
        await history.put("b", turn(3), 10)
        seam.ahead = 0
        assert await history.load("a", 10) == [turn(1)]


async def test_a_clock_that_stays_as_it_was_set_counts_an_hour_later(tmp_path: Path) -> None:
    seam = LaterSeam()
    history = SqliteHistory(tmp_path / "history.db", seam, keep_days=2)
    async with history.open():
        await history.put("a", turn(1), 10)
        seam.ahead = 3660
        await history.put("b", turn(1), 10)
        assert await history.load("a", 10) == []
        for hours in (1.1, 2.2):
            seam.days = hours / 24
            await history.put("b", turn(2), 10)
        seam.ahead = 0
        assert await history.load("a", 10) == []


async def test_a_file_of_an_earlier_version_is_used(tmp_path: Path) -> None:
    history = store(tmp_path)
    async with history.open():
        await history.put("a", turn(1), 10)
    with closing(sqlite3.connect(tmp_path / "agents" / "history.db")) as database:
        database.execute("DROP INDEX messages_at")
    async with history.open():
        assert await history.load("a", 10) == [turn(1)]
    with closing(sqlite3.connect(tmp_path / "agents" / "history.db")) as database:
        plan = database.execute("EXPLAIN QUERY PLAN DELETE FROM messages WHERE at < 1").fetchall()
    assert "messages_at" in plan[0][-1]


async def test_one_session_is_forgotten(tmp_path: Path) -> None:
    history = store(tmp_path)
    async with history.open():
        await history.put("a", turn(1), 10)
        await history.put("b", turn(1), 10)
        await history.forget("a")
        assert await history.load("a", 10) == []
        assert await history.load("b", 10) == [turn(1)]


async def test_two_gateways_may_share_the_file(tmp_path: Path) -> None:
    one, two = store(tmp_path), store(tmp_path)
    async with one.open(), two.open(), anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(one.put, "a", turn(number), 100)
            tasks.start_soon(two.put, "a", turn(100 + number), 100)
    async with one.open():
        assert len(await one.load("a", 100)) == 20


@pytest.mark.usefixtures("no_umask")
async def test_the_file_is_private(tmp_path: Path) -> None:
    history = store(tmp_path)
    async with history.open():
        await history.put("a", turn(1), 10)
        files = {path.name: path.stat() for path in (tmp_path / "agents").iterdir()}
        assert {"history.db", "history.db-wal"} <= set(files)
        assert {stat.S_IMODE(file.st_mode) for file in files.values()} == {0o600}
        assert stat.S_IMODE((tmp_path / "agents").stat().st_mode) == 0o700


async def test_a_file_with_a_loose_mode_is_tightened(tmp_path: Path) -> None:
    history = store(tmp_path)
    async with history.open():
        await history.put("a", turn(1), 10)
    file = tmp_path / "agents" / "history.db"
    file.chmod(0o644)
    async with history.open():
        await history.put("a", turn(2), 10)
        assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}


async def test_trouble_is_a_store_error(tmp_path: Path) -> None:
    history = store(tmp_path)
    with pytest.raises(StoreError, match="not open"):
        await history.load("a", 1)
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "history.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"history\.db"):
        async with history.open():
            raise AssertionError("it opened")


async def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "agents" / "history.db"
    async with store(tmp_path).open():
        pass
    file.write_bytes(b"not a database\n" * 500)
    with pytest.raises(
        StoreError, match=r"history\.db .* not a database; restore a backup, or delete"
    ):
        async with store(tmp_path).open():
            pass
    file.unlink()
    async with store(tmp_path).open():
        pass


async def test_listing_backends_imports_no_library() -> None:
    code = (
        "import sys; from voicecall.registry import Registry; from voicecall import ProviderKind;"
        "info = Registry().load(ProviderKind.AGENT, 'pydantic-ai'); info.config_model();"
        "print('pydantic_ai' in sys.modules, 'openai' in sys.modules)"
    )
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    )
    assert done.stdout.split() == ["False", "False"]
