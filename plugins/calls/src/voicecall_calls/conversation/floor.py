"""The bot's floor: one utterance or reply at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

__all__ = ["Floor", "Stoppable"]


@dataclass(slots=True)
class Stoppable:
    """Something under way: ``scope`` stops it, ``over`` is set when it has ended."""

    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: anyio.Event = field(default_factory=anyio.Event)


class Floor:
    """Held while the bot speaks or prepares a reply, which an interruption cancels: the speech
    stops, and the record learns what was heard.

    While ``over`` returns a reason, whoever takes the floor is cancelled at once. ``left`` is
    called when the bot is silent again. ``lock`` alone is held for speech that cannot be
    interrupted."""

    def __init__(self, *, over: Callable[[], str | None], left: Callable[[], None]) -> None:
        self.lock = anyio.Lock()
        self.interruptions = 0
        self._over = over
        self._left = left
        self._open = anyio.Event()
        self._holder: Stoppable | None = None

    def open(self) -> None:
        """Let the floor be taken: the first message may be spoken."""
        self._open.set()

    def interrupt(self) -> None:
        """Cancel what holds the floor. What waits for it may notice by ``interruptions``."""
        self.interruptions += 1
        if self._holder is not None:
            self._holder.scope.cancel()

    async def interrupted(self) -> None:
        """Wait until interrupted speech has been recorded."""
        if self._holder is not None:
            await self._holder.over.wait()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Hold the floor inside; an interruption cancels the body and leaves the context."""
        if not self._open.is_set():
            await self._open.wait()
        async with self.lock:
            self._holder = holder = Stoppable()
            with holder.scope:
                try:
                    if self._over() is not None:
                        holder.scope.cancel()
                    yield
                finally:
                    self._holder = None
                    holder.over.set()
                    self._left()
