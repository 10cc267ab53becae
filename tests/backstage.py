"""Close what a test leaves open while the next tests of its module run.

A uvicorn server takes about 0.2 s to stop, most of it asleep: longer than most of its tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.abc

__all__ = ["closed_backstage", "opened"]

T = TypeVar("T")


@dataclass
class _Stage:
    tasks: anyio.abc.TaskGroup
    failures: list[Exception] = field(default_factory=list)


_stage: _Stage | None = None


@asynccontextmanager
async def opened() -> AsyncIterator[None]:
    """Inside this context, :func:`closed_backstage` does not wait for anything to close. On leaving
    it, all are waited for, and their errors are raised as a group."""
    global _stage
    async with anyio.create_task_group() as tasks:
        stage = _stage = _Stage(tasks)
        try:
            yield
        finally:
            _stage = None
    if stage.failures:
        raise ExceptionGroup("closed backstage", stage.failures)


@asynccontextmanager
async def closed_backstage(context: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter ``context`` and close it backstage. Without an open stage: ``async with context``."""
    stage = _stage
    if stage is None:
        async with context as plain:
            yield plain
        return
    left = anyio.Event()
    begun = False

    async def host(*, task_status: anyio.abc.TaskStatus[T]) -> None:
        nonlocal begun
        try:
            async with context as entered:
                task_status.started(entered)
                begun = True
                await left.wait()
        except Exception as error:
            if not begun:
                raise
            # Raised here, it would cancel whatever test is running by then.
            stage.failures.append(error)

    thing: T = await stage.tasks.start(host)
    try:
        yield thing
    finally:
        left.set()
