"""What is to be delivered about one call: in order, unless faults change the order."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

import anyio

__all__ = ["Postbox"]

T = TypeVar("T")


class Postbox(ABC, Generic[T]):
    """The queue of one call: filled by synchronous methods, emptied by one task. A letter to be
    swapped waits up to ``neighbour_s`` for the next one."""

    def __init__(self, neighbour_s: float) -> None:
        self._neighbour_s = neighbour_s
        self._letters: deque[T] = deque()
        self._more = anyio.Event()
        self._finished = False

    def put(self, letter: T) -> None:
        """Queue a letter. Never waits."""
        self._letters.append(letter)
        self._more.set()

    def finish(self) -> None:
        """The last letter has been queued."""
        self._finished = True
        self._more.set()

    async def run(self) -> None:
        """Return when the last letter was delivered or given up."""
        while (letter := await self._take()) is not None:
            if self._is_swapped(letter):
                neighbour = await self._take(self._neighbour_s)
                if neighbour is not None:
                    await self._deliver(neighbour)
            await self._deliver(letter)

    @abstractmethod
    def _is_swapped(self, letter: T) -> bool:
        """Whether the next letter is delivered before this one."""

    @abstractmethod
    async def _deliver(self, letter: T) -> None: ...

    async def _take(self, within_s: float = math.inf) -> T | None:
        """The next letter; None after the last, or if none comes in time."""
        with anyio.move_on_after(within_s):
            while not self._letters:
                if self._finished:
                    return None
                self._more = anyio.Event()
                await self._more.wait()
        return self._letters.popleft() if self._letters else None
