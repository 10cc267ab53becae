"""How long the suites wait for what never comes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

__all__ = ["within"]


@contextmanager
def within(seconds: float, what: str) -> Iterator[anyio.CancelScope]:
    """Break off after ``seconds``. Raises ``TimeoutError`` then, which names ``what`` was waited
    for."""
    with anyio.move_on_after(seconds) as scope:
        yield scope
    if scope.cancelled_caught:
        raise TimeoutError(f"{what}: waited {seconds:g} s in vain")
