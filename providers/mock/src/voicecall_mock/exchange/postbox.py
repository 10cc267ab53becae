"""What is to be delivered about one call, in its order."""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, TypeVar

import anyio

__all__ = ["Postbox"]

T = TypeVar("T")


class Postbox(Generic[T]):
    """Filled by plain calls, emptied by one task."""

    def __init__(self) -> None:
        self._letters: deque[T] = deque()
        self._more = anyio.Event()
        self._finished = False

    def put(self, letter: T) -> None:
        """Never waits."""
        self._letters.append(letter)
        self._more.set()

    def finish(self) -> None:
        """The last one was put in."""
        self._finished = True
        self._more.set()

    async def take(self, within_s: float = math.inf) -> T | None:
        """The next one; None after the last, or when none comes in time."""
        with anyio.move_on_after(within_s):
            while not self._letters:
                if self._finished:
                    return None
                self._more = anyio.Event()
                await self._more.wait()
        return self._letters.popleft() if self._letters else None
