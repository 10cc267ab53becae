"""Batches work that nothing waits for.

Code that runs only now and then finds the processor's caches cold and takes several times as long
as code that has just run. With hundreds of calls in conversation, this is most of the cost of
recording a spoken item. Also, a group of commits costs the same however many it contains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voicecall_calls.news import News

__all__ = ["Company"]

PATIENCE_S = 0.005
"""Longest wait, times the number of live calls: with many, waiting soon fills a batch, and a call
that is alone hardly waits."""
MOST_S = 0.5
"""Longest wait of all: somebody who follows a transcript would notice more."""
ENOUGH = 8
"""Size of a full batch, which blocks the event loop for one or two milliseconds."""


class Company:
    """One per engine, for its event loop. ``calls`` returns the number of live calls."""

    def __init__(self, calls: Callable[[], int], *, enough: int = ENOUGH) -> None:
        self._calls = calls
        self._enough = enough
        self._waiting = 0
        self._complete = News()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self) -> None:
        """Wait until the batch is full, its first member has waited long enough, or :meth:`hurry`
        is called."""
        self._waiting += 1
        if self._waiting >= self._enough:
            self.hurry()
            return
        if self._timer is None:
            patience_s = min(self._calls() * PATIENCE_S, MOST_S)
            self._timer = asyncio.get_running_loop().call_later(patience_s, self.hurry)
        await self._complete.wait()

    def hurry(self) -> None:
        """Release everything that is waiting."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting = 0
        self._complete.tell()
