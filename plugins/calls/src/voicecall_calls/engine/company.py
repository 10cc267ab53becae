"""What nobody waits for is done together with more of its kind.

Code that runs now and then finds the processor's caches full of other things, and takes several
times as long as when it has just run; with hundreds of calls in their conversations that is most
of what the record of a spoken item costs. And a group of commits costs the same whatever is in it.
"""

from __future__ import annotations

import asyncio

from voicecall_calls.news import News

__all__ = ["Company"]

PATIENCE_S = 0.2
"""Less than the shortest item takes to be spoken."""
ENOUGH = 8
"""So many at once hold the event loop up for one or two milliseconds."""


class Company:
    """One an engine, for its event loop."""

    def __init__(self, *, enough: int = ENOUGH, patience_s: float = PATIENCE_S) -> None:
        self._enough = enough
        self._patience_s = patience_s
        self._waiting = 0
        self._complete = News()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Wait until enough have gathered, the first has waited long enough, or somebody is in a
        hurry."""
        self._waiting += 1
        if self._waiting >= self._enough:
            self.hurry()
            return
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._patience_s, self.hurry)
        await self._complete.wait()

    def hurry(self) -> None:
        """Let all go on that have gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting = 0
        self._complete.tell()
