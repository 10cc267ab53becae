"""Cheap asyncio events for cases in which mostly nothing waits: an ``anyio.Event`` costs several
times as much, and a call needs some for every sentence."""

from __future__ import annotations

import asyncio

__all__ = ["LazyEvent", "News"]


class News:
    """An event that happens repeatedly."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[bool]] | None = None

    def tell(self) -> None:
        """Wake everything that is waiting now."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            for future in waiting:
                _settle(future, True)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for the next :meth:`tell`; False if it did not come within ``seconds``."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(future)
        timer = loop.call_later(seconds, _settle, future, False) if seconds is not None else None
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self._forget(future)

    def _forget(self, future: asyncio.Future[bool]) -> None:
        """Remove a waiter that timed out or was cancelled before it was woken."""
        if self._waiting is not None and future in self._waiting:
            self._waiting.remove(future)


def _settle(future: asyncio.Future[bool], told: bool) -> None:
    # The waiter may have been cancelled, or timed out in the same iteration of the loop.
    if not future.done():
        future.set_result(told)


class LazyEvent:
    """Like ``anyio.Event``: an event that happens once."""

    __slots__ = ("_news", "_set")

    def __init__(self) -> None:
        self._set = False
        self._news: News | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        if self._news is not None:
            self._news.tell()

    async def wait(self) -> None:
        """Wait until it is set; returns at once if it is set already."""
        if self._set:
            return
        if self._news is None:
            self._news = News()
        await self._news.wait()
