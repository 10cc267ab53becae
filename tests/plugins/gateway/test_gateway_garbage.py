"""Garbage is collected while no call is up. On virtual time."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from voicecall_gateway.garbage import LOOK_SECONDS, collect_garbage
from voicecall_testing.clock import virtual_backend

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


@pytest.fixture
def nothing_collected() -> Iterator[None]:
    """Nothing is collected but what the test asks for, and what is there at its beginning is not
    looked at, as after the start of a gateway."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


class Part:
    """An object in a reference cycle, like the parts of a call."""

    def __init__(self) -> None:
        self.other = self


def live_calls() -> list[list[int]]:
    """Objects that stay, more of them than :func:`left` counts as new."""
    calls: list[list[int]] = [[] for _ in range(50_000)]
    gc.collect()
    return calls


def left() -> weakref.ref[Part]:
    """What a long call leaves: an old object that only a full collection frees."""
    part = Part()
    for _ in range(2):
        gc.collect(1)
    return weakref.ref(part)


@pytest.mark.usefixtures("nothing_collected")
async def test_what_calls_leave_is_collected_once_none_is_up() -> None:
    idle = False
    calls = live_calls()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collect_garbage, lambda: idle)
        await anyio.sleep(0)
        first = left()
        await anyio.sleep(3 * LOOK_SECONDS)
        assert first() is not None
        idle = True
        await anyio.sleep(LOOK_SECONDS)
        assert first() is None
        # Nothing was made since.
        looks = gc.get_stats()[2]["collections"]
        await anyio.sleep(3 * LOOK_SECONDS)
        assert gc.get_stats()[2]["collections"] == looks
        second = left()
        await anyio.sleep(LOOK_SECONDS)
        assert second() is None
        tasks.cancel_scope.cancel()
    calls.clear()


@pytest.mark.usefixtures("nothing_collected")
async def test_where_somebody_always_talks_it_is_collected_once_that_is_worth_it() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collect_garbage, lambda: False)
        await anyio.sleep(0)
        first = left()
        await anyio.sleep(LOOK_SECONDS)
        assert first() is None
        # Each collection decides anew by what it has kept.
        calls = live_calls()
        left()
        await anyio.sleep(LOOK_SECONDS)
        second = left()
        await anyio.sleep(3 * LOOK_SECONDS)
        assert second() is not None
        for _ in range(6):
            gc.collect(1)
        await anyio.sleep(LOOK_SECONDS)
        assert second() is None
        tasks.cancel_scope.cancel()
    calls.clear()
