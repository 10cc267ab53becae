"""Holding what is a stranger's in a task of its own, so that what does not end is left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import iscoroutinefunction
from typing import Generic, TypeVar

import anyio

from voicecall_calls.news import LazyEvent

__all__ = ["apart", "check_plain", "held"]

_log = logging.getLogger("voicecall.calls")
_LEAVES_S = 2.0
"""How long what is cancelled may take to end."""

T = TypeVar("T")
_left: set[asyncio.Task[None]] = set()
"""What did not end in time; the loop itself keeps no task alive."""


def check_plain(one: object, *names: str) -> None:
    """Raises ``TypeError`` where a method of ``one`` has no effect: nobody awaits these."""
    for name in names:
        if iscoroutinefunction(getattr(one, name)):
            kind = type(one)
            raise TypeError(
                f"{kind.__module__}.{kind.__qualname__}.{name} is a coroutine function; it must be"
                " a plain one (def, not async def)"
            )


@asynccontextmanager
async def held(session: AbstractAsyncContextManager[T], whose: str) -> AsyncIterator[T]:
    """Enter ``session`` as ``async with session`` does, and leave it: the exit may take as long as
    nobody cancels it, and a moment after that, even where it does not let itself be cancelled.
    ``whose`` it is says the log."""
    holder = _Holder(session)
    task = asyncio.create_task(holder.run())
    try:
        await holder.settled.wait()
        with holder.body:
            for opened in holder.opened:
                yield opened
        holder.leave.set()
        await holder.over.wait()
    finally:
        if not holder.over.is_set():
            holder.scope.cancel()
            holder.leave.set()
            with anyio.move_on_after(_LEAVES_S, shield=True):
                await holder.over.wait()
        if not holder.over.is_set():
            _log.warning("%s does not end when it is cancelled; it is abandoned", whose)
            # Not cancelled by force: a thread of its own may be at work.
            _left.add(task)
            task.add_done_callback(_left.discard)
        if holder.error is not None:
            raise holder.error


async def apart(job: Callable[[], Awaitable[T]], whose: str) -> T:
    """Run ``job`` as if it stood here, but that it is left, too, where it does not let itself be
    cancelled."""

    @asynccontextmanager
    async def running() -> AsyncIterator[T]:
        yield await job()

    async with held(running(), whose) as result:
        pass
    return result


class _Holder(Generic[T]):
    """``settled``: the session is open, or ``over``. ``body``: the use that is made of it, behind
    which it may ``leave``."""

    # Every call has one.
    __slots__ = ("_session", "body", "error", "leave", "opened", "over", "scope", "settled")

    def __init__(self, session: AbstractAsyncContextManager[T]) -> None:
        self.opened: list[T] = []
        self.settled = LazyEvent()
        self.leave = LazyEvent()
        self.over = LazyEvent()
        self.scope = anyio.CancelScope()
        self.body = anyio.CancelScope()
        self.error: Exception | None = None
        self._session = session

    async def run(self) -> None:
        try:
            with self.scope:
                async with self._session as opened:
                    self.opened.append(opened)
                    self.settled.set()
                    await self._used()
        except Exception as error:  # noqa: BLE001 (raised again where the session is used)
            self.error = error
        except SystemExit as error:
            # Past the task it would stop the whole gateway.
            self.error = RuntimeError(f"it raised SystemExit: {error}")
        finally:
            self.settled.set()
            self.over.set()

    async def _used(self) -> None:
        try:
            await self.leave.wait()
        finally:
            if not self.leave.is_set():
                # It ends by itself. Its use ends first, as it would in one task.
                self.body.cancel()
                with anyio.CancelScope(shield=True):
                    await self.leave.wait()
