"""What nobody waits for is done together with more of its kind.

Code that runs now and then finds the processor's caches full of other things, and takes several
times as long as when it has just run; with hundreds of calls in their conversations that is most
of what the record of a spoken item costs. And a group of commits costs the same whatever is in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from voicecall_calls.news import News

__all__ = ["Company"]

PATIENCE_S = 0.005
"""For each live call: the more there are, the sooner others come. Alone, nobody waits in vain."""
MOST_S = 0.5
"""Whoever reads a transcript as it grows would notice more."""
ENOUGH = 8
"""So many at once hold the event loop up for one or two milliseconds."""


class Company:
    """One an engine, for its event loop. ``calls`` gives the number of live calls."""

    def __init__(self, calls: Callable[[], int], *, enough: int = ENOUGH) -> None:
        self._calls = calls
        self._enough = enough
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
            patience_s = min(self._calls() * PATIENCE_S, MOST_S)
            self._timer = asyncio.get_running_loop().call_later(patience_s, self.hurry)
        await self._complete.wait()

    def hurry(self) -> None:
        """Let all go on that have gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting = 0
        self._complete.tell()
