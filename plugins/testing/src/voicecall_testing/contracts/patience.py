"""How long the suites wait for what never comes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeVar

import anyio

__all__ = ["opened", "within"]

T = TypeVar("T")

_SESSION_S = 20.0


@contextmanager
def within(seconds: float, what: str) -> Iterator[anyio.CancelScope]:
    """Break off after ``seconds``. Raises ``TimeoutError`` then, which names ``what`` was waited
    for."""
    with anyio.move_on_after(seconds) as scope:
        yield scope
    if scope.cancelled_caught:
        raise TimeoutError(f"{what}: waited {seconds:g} s in vain")


@asynccontextmanager
async def opened(session: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """What ``session`` gives, which opens in time, and closes in time."""
    with within(_SESSION_S, "a session that opens and closes") as patience:
        async with session as entered:
            patience.deadline = math.inf
            try:
                yield entered
            finally:
                patience.deadline = anyio.current_time() + _SESSION_S
