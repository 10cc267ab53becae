"""Gathering of patient events: how long one waits for others. On virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from voicecall_calls.engine.company import Company
from voicecall_testing.clock import virtual_backend

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Gathering:
    """The virtual milliseconds at which each waiter went on."""

    def __init__(self, calls: int = 40) -> None:
        self.company = Company(lambda: calls, enough=3)
        self.gone: dict[str, int] = {}
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()

    async def one(self, name: str, at_ms: int = 0) -> None:
        await anyio.sleep(at_ms / 1000)
        await self.company.wait()
        self.gone[name] = round((self._clock() - self._began) * 1000)


async def test_who_is_alone_waits_as_long_as_it_may() -> None:
    it = Gathering()
    await it.one("first")
    await it.one("second")
    assert it.gone == {"first": 200, "second": 400}


@pytest.mark.parametrize(("calls", "ms"), [(1, 5), (2, 10), (100, 500), (400, 500)])
async def test_the_fewer_calls_the_less_patience(calls: int, ms: int) -> None:
    it = Gathering(calls)
    await it.one("only")
    assert it.gone == {"only": ms}


async def test_those_who_gather_wait_for_the_first_ones_patience() -> None:
    it = Gathering()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.one, "first")
        tasks.start_soon(it.one, "second", 199)
        tasks.start_soon(it.one, "late", 201)
    assert it.gone == {"first": 200, "second": 200, "late": 401}


async def test_enough_go_on_at_once() -> None:
    it = Gathering()
    async with anyio.create_task_group() as tasks:
        for number in range(7):
            tasks.start_soon(it.one, f"{number}", number * 10)
    assert it.gone == {"0": 20, "1": 20, "2": 20, "3": 50, "4": 50, "5": 50, "6": 260}


async def test_somebody_in_a_hurry_takes_all_along() -> None:
    it = Gathering()
    it.company.hurry()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(it.one, "first")
        tasks.start_soon(it.one, "second", 10)
        await anyio.sleep(0.05)
        it.company.hurry()
        it.company.hurry()
        tasks.start_soon(it.one, "after", 10)
    assert it.gone == {"first": 50, "second": 50, "after": 260}
