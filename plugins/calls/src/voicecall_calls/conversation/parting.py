"""The end of a call that the bot begins: once, behind words that nobody interrupts."""

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
    """``floor`` is held while somebody speaks; ``quiet`` stops the running reply; ``say`` speaks by
    another voice than the one that failed, where there is one."""

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
        """Why there is nothing more to say or to end."""
        self._lane = lane
        self._floor = floor
        self._quiet = quiet
        self._say = say

    @property
    def over(self) -> str | None:
        """Why nothing more is said; also while the call is being ended."""
        ending = self._lane.record.ending is not None
        return self.closed or ("the call is being ended" if ending else None)

    def begin(self, text: str, reason: EndReason, detail: EndDetail) -> None:
        """End the call behind ``text``, unless its end has begun already."""
        self.begin_with(partial(self._say_and_end, text, reason, detail))

    def begin_with(self, words: Callable[[], Awaitable[None]]) -> bool:
        """Have ``words`` said that end the call themselves; False where its end has begun
        already."""
        if self.begun or self.over is not None:
            return False
        self.begun = True
        self._lane.spawn(partial(self._part, words))
        return True

    async def _part(self, words: Callable[[], Awaitable[None]]) -> None:
        await self._quiet()
        # Without a scope: nothing takes the floor from the last words.
        async with self._floor:
            await words()

    async def _say_and_end(self, text: str, reason: EndReason, detail: EndDetail) -> None:
        if self._say is not None:
            await self._say(text)
        await self._lane.end(reason, detail)
