"""Runs third-party code in its own task, so that code that does not end can be abandoned."""

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
"""How long a cancelled session may take to end."""

T = TypeVar("T")
_left: set[asyncio.Task[None]] = set()
"""Tasks that did not end in time; the event loop itself keeps only weak references."""


def check_plain(one: object, *names: str) -> None:
    """Raises ``TypeError`` if a method of ``one`` is a coroutine function: it is never awaited."""
    for name in names:
        if iscoroutinefunction(getattr(one, name)):
            kind = type(one)
            raise TypeError(
                f"{kind.__module__}.{kind.__qualname__}.{name} is a coroutine function; it must be"
                " a plain one (def, not async def)"
            )


@asynccontextmanager
async def held(session: AbstractAsyncContextManager[T], whose: str) -> AsyncIterator[T]:
    """Enter and exit ``session`` like ``async with session``, except that an exit that ignores
    cancellation is abandoned after a moment. ``whose``: how the log names the session."""
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
            # Not cancelled by force: a thread that it started may still be at work.
            _left.add(task)
            task.add_done_callback(_left.discard)
        if holder.error is not None:
            raise holder.error


async def apart(job: Callable[[], Awaitable[T]], whose: str) -> T:
    """Like ``await job()``, except that a job that ignores cancellation is abandoned."""

    @asynccontextmanager
    async def running() -> AsyncIterator[T]:
        yield await job()

    async with held(running(), whose) as result:
        pass
    return result


class _Holder(Generic[T]):
    """``settled``: the session is open, or ``over``. ``body``: the scope in which it is used.
    ``leave``: it may exit."""

    # Every call has several.
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
            # Outside of the task it would stop the whole gateway.
            self.error = RuntimeError(f"it raised SystemExit: {error}")
        finally:
            self.settled.set()
            self.over.set()

    async def _used(self) -> None:
        try:
            await self.leave.wait()
        finally:
            if not self.leave.is_set():
                # The session ended by itself. Its use is cancelled first, as within one task.
                self.body.cancel()
                with anyio.CancelScope(shield=True):
                    await self.leave.wait()
