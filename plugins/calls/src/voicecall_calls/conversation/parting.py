"""Ending a call from the bot's side: once, after last words that cannot be interrupted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from voicecall.model import EndDetail, EndReason

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["Parting"]


class Parting:
    """Ends a call after its last words. ``floor`` is held while the bot speaks; ``quiet`` stops the
    running reply; ``say`` speaks by another voice than the one that failed, if there is one."""

    def __init__(
        self,
        lane: CallLane,
        floor: anyio.Lock,
        *,
        quiet: Callable[[], Awaitable[None]],
        say: Callable[[str], Awaitable[object]] | None,
    ) -> None:
        self.begun = False
        self.closed: str | None = None
        """Why the call is over, once it is."""
        self._lane = lane
        self._floor = floor
        self._quiet = quiet
        self._say = say

    @property
    def over(self) -> str | None:
        """Why nothing more may be said: the call is over or being ended. Else None."""
        ending = self._lane.record.ending is not None
        return self.closed or ("the call is being ended" if ending else None)

    def begin(self, text: str, reason: EndReason, detail: EndDetail) -> None:
        """Say ``text`` and end the call, unless its end has begun already."""
        self.begin_with(partial(self._say_and_end, text, reason, detail))

    def begin_with(self, words: Callable[[], Awaitable[None]]) -> bool:
        """Run ``words``, which speak and then end the call. False if its end has begun already."""
        if self.begun or self.over is not None:
            return False
        self.begun = True
        self._lane.spawn(partial(self._part, words))
        return True

    async def _part(self, words: Callable[[], Awaitable[None]]) -> None:
        await self._quiet()
        # The lock alone: nothing interrupts the last words.
        async with self._floor:
            await words()

    async def _say_and_end(self, text: str, reason: EndReason, detail: EndDetail) -> None:
        if self._say is not None:
            await self._say(text)
        await self._lane.end(reason, detail)
