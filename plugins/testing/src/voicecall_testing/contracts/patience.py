"""Time limits of the suites."""

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
    """Cancel the block after ``seconds`` and raise ``TimeoutError``, whose message says ``what``
    was waited for."""
    with anyio.move_on_after(seconds) as scope:
        yield scope
    if scope.cancelled_caught:
        raise TimeoutError(f"{what}: waited {seconds:g} s in vain")


@asynccontextmanager
async def opened(session: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter ``session``. Raises ``TimeoutError`` if opening or closing it takes longer than 20
    seconds."""
    with within(_SESSION_S, "a session that opens and closes") as patience:
        async with session as entered:
            patience.deadline = math.inf
            try:
                yield entered
            finally:
                patience.deadline = anyio.current_time() + _SESSION_S
