"""``News`` and the one-time event: who is woken, when, and what cancellation does."""

from __future__ import annotations

import anyio
import pytest

from voicecall_calls.news import LazyEvent, News

pytestmark = pytest.mark.unit


@pytest.mark.anyio
async def test_all_who_wait_go_on_once_it_is_set() -> None:
    event, gone = LazyEvent(), []

    async def waiter(number: int) -> None:
        await event.wait()
        gone.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(waiter, number)
        await anyio.wait_all_tasks_blocked()
        assert (gone, event.is_set()) == ([], False)
        event.set()
        assert event.is_set()
    assert sorted(gone) == [0, 1, 2]


@pytest.mark.anyio
async def test_nobody_waits_for_what_is_set() -> None:
    event = LazyEvent()
    event.set()
    await event.wait()
    event.set()
    assert event.is_set()


@pytest.mark.anyio
async def test_news_wake_who_waits_then_and_nobody_later() -> None:
    news, heard = News(), []

    async def waiter(number: int) -> None:
        heard.append((number, await news.wait()))

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(waiter, number)
        await anyio.wait_all_tasks_blocked()
        news.tell()
        await anyio.wait_all_tasks_blocked()
        assert sorted(heard) == [(0, True), (1, True), (2, True)]
        tasks.start_soon(waiter, 3)
        await anyio.wait_all_tasks_blocked()
        assert len(heard) == 3
        news.tell()


@pytest.mark.anyio
async def test_news_may_not_come_in_time() -> None:
    news = News()
    assert await news.wait(0.01) is False
    news.tell()
    assert await news.wait(0.01) is False


@pytest.mark.anyio
async def test_who_is_cancelled_keeps_no_news_from_others() -> None:
    news, heard = News(), []

    async def waiter() -> None:
        heard.append(await news.wait(10))

    async with anyio.create_task_group() as tasks:
        with anyio.move_on_after(0.01):
            await news.wait(10)
        tasks.start_soon(waiter)
        await anyio.wait_all_tasks_blocked()
        news.tell()
    assert heard == [True]
