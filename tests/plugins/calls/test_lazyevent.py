"""The event that is made once somebody waits."""

from __future__ import annotations

import anyio
import pytest

from voicecall_calls.lazyevent import LazyEvent

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
