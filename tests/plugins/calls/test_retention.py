"""Old finished calls are deleted from the store while the phone runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.errors import StoreError
from voicecall.store import Approval, Commit, DialReservation
from voicecall_calls.config import RetentionConfig
from voicecall_calls.retention import EVERY_S, FIRST_S, retaining
from voicecall_calls.store import SqliteStore
from voicecall_testing.clock import VirtualSeam, VirtualTimeLoop, virtual_backend
from voicecall_testing.contracts.records import call_record, ended

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

DAY_S = 24 * 3600.0


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Room:
    """A store and its bounds."""

    def __init__(self, store: SqliteStore, seam: VirtualSeam) -> None:
        self.store = store
        self.seam = seam
        self.bounds = RetentionConfig()

    async def end(self, *call_ids: str) -> None:
        """These calls are over now."""
        for call_id in call_ids:
            await self.store.commit(Commit(record=ended(call_id, self.seam.now_ms())))
            await anyio.sleep(0.001)

    async def kept(self) -> list[str]:
        return sorted(record.call_id for record in await self.store.recent(100))

    @asynccontextmanager
    async def retaining(self) -> AsyncIterator[None]:
        async with retaining(self.store, self.seam, lambda: self.bounds):
            await anyio.sleep(FIRST_S + 0.001)
            yield


@asynccontextmanager
async def opened(store: type[SqliteStore], directory: Path) -> AsyncIterator[Room]:
    seam = VirtualSeam()
    room = Room(store(directory, seam), seam)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    undo = loop.add_busy_check(lambda: room.store.outstanding > 0)
    try:
        async with room.store.lifespan():
            yield room
    finally:
        undo()


async def test_the_newest_stay_from_the_start_and_from_hour_to_hour(tmp_path: Path) -> None:
    async with opened(SqliteStore, tmp_path) as room:
        await room.store.commit(Commit(record=call_record("live", started_at=0)))
        await room.end("a", "b", "c")
        room.bounds = RetentionConfig(calls=2)
        async with room.retaining():
            assert await room.kept() == ["b", "c", "live"]
            await room.end("d", "e")
            await anyio.sleep(EVERY_S - 60)
            assert await room.kept() == ["b", "c", "d", "e", "live"]
            await anyio.sleep(60)
            assert await room.kept() == ["d", "e", "live"]


async def test_who_only_looks_drops_nothing(tmp_path: Path) -> None:
    async with opened(SqliteStore, tmp_path) as room:
        await room.end("a")
        room.bounds = RetentionConfig(calls=0)
        async with retaining(room.store, room.seam, lambda: room.bounds):
            await anyio.sleep(FIRST_S - 1)
        assert await room.kept() == ["a"]


async def test_what_ended_long_ago_goes(tmp_path: Path) -> None:
    async with opened(SqliteStore, tmp_path) as room:
        room.bounds = RetentionConfig(days=2)
        async with room.retaining():
            await room.end("old")
            await anyio.sleep(DAY_S)
            await room.end("young")
            await anyio.sleep(DAY_S - EVERY_S)
            assert await room.kept() == ["old", "young"]
            await anyio.sleep(2 * EVERY_S)
            assert await room.kept() == ["young"]


async def test_a_clock_that_is_wrong_for_a_moment_makes_no_call_old(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    year_ms = 366 * int(DAY_S) * 1000
    async with opened(SqliteStore, tmp_path) as room:
        await room.end("a")
        room.seam.set_wall_clock(year_ms)
        async with room.retaining():
            # As on a machine whose clock is set only after it has started.
            assert await room.kept() == ["a"]
            room.seam.set_wall_clock(-year_ms)
            await anyio.sleep(EVERY_S)
            await room.end("b")
            room.seam.set_wall_clock(10 * year_ms)
            await anyio.sleep(EVERY_S)
            assert await room.kept() == ["a", "b"]
            assert "the clock went forward by 3660 days" in caplog.text
            room.seam.set_wall_clock(-10 * year_ms)
            await anyio.sleep(2 * EVERY_S)
            assert await room.kept() == ["a", "b"]


async def test_a_clock_that_stays_as_it_was_set_counts_an_hour_later(tmp_path: Path) -> None:
    async with opened(SqliteStore, tmp_path) as room:
        await room.end("a")
        async with room.retaining():
            room.seam.set_wall_clock(366 * int(DAY_S) * 1000)
            await anyio.sleep(EVERY_S)
            assert await room.kept() == ["a"]
            await anyio.sleep(EVERY_S)
            assert await room.kept() == []


async def test_changed_bounds_hold_from_the_next_hour(tmp_path: Path) -> None:
    async with opened(SqliteStore, tmp_path) as room:
        async with room.retaining():
            await room.end("a", "b")
            room.bounds = RetentionConfig(calls=0)
            await anyio.sleep(EVERY_S)
            assert await room.kept() == []


async def test_keys_of_dropped_calls_go_a_day_later(tmp_path: Path) -> None:
    async with opened(SqliteStore, tmp_path) as room:
        room.bounds = RetentionConfig(calls=0, days=2)
        now = room.seam.now_ms()
        await room.store.commit(
            Commit(
                record=ended("a", now),
                processed_keys=["k"],
                reservation=DialReservation("d", "a", now),
            )
        )
        async with room.retaining():
            assert await room.kept() == []
            await anyio.sleep(DAY_S - EVERY_S)
            assert await room.store.is_processed("k")
            await anyio.sleep(2 * EVERY_S)
            assert not await room.store.is_processed("k")
            assert await room.store.reservation("d") is not None
            await anyio.sleep(DAY_S)
            assert await room.store.reservation("d") is None


async def test_callers_whose_code_has_expired_are_forgotten(tmp_path: Path) -> None:
    async with opened(SqliteStore, tmp_path) as room:
        now = room.seam.now_ms()
        hour = int(EVERY_S) * 1000
        callers = (
            Approval("+15550100001", "pending", "111111", now, now + hour),
            Approval("+15550100002", "pending", "222222", now, now + 3 * hour),
            Approval("+15550100003", "approved", "", now, 0),
            Approval("+15550100004", "revoked", "", now, 0),
        )
        await room.store.commit(Commit(approvals=callers))
        async with room.retaining():
            assert len(await room.store.approvals()) == 4
            await anyio.sleep(EVERY_S)
            left = {approval.number for approval in await room.store.approvals()}
            assert left == {approval.number for approval in callers[1:]}


class Busy(SqliteStore):
    """Cannot drop anything at first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.troubles = [StoreError("the disk is full"), OverflowError("too large")]

    async def prune(self, now_ms: int, *, keep_calls: int, keep_days: int) -> int:
        if self.troubles:
            raise self.troubles.pop(0)
        return await super().prune(now_ms, keep_calls=keep_calls, keep_days=keep_days)


async def test_a_store_that_fails_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "voicecall.calls")
    async with opened(Busy, tmp_path) as room:
        await room.end("a", "b")
        room.bounds = RetentionConfig(calls=1)
        async with room.retaining():
            for _ in range(2):
                assert await room.kept() == ["a", "b"]
                await anyio.sleep(EVERY_S)
            assert await room.kept() == ["b"]
    assert [record.getMessage() for record in caplog.records] == [
        "old calls could not be deleted, next try in an hour: the disk is full",
        "old calls could not be deleted, next try in an hour",
        "old calls deleted from the store: 1",
    ]
