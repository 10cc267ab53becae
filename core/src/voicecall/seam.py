"""The one place where time, ids and randomness come from.

Waiting is ``anyio.sleep``: on a virtual event loop it takes no real time. Everything else that
is not a pure function of its inputs is asked of a :class:`Seam`, so that a whole dialogue can be
replayed in a test.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Seam", "SystemSeam"]


class Seam(Protocol):
    """Wall clock, monotonic clock, ids and randomness."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch. For records and stored deadlines."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps. For durations and pacing."""
        ...

    def new_id(self) -> str:
        """A random UUID (version 4) in its usual text form."""
        ...

    def token(self) -> str:
        """An unguessable text of 128 random bits, URL safe."""
        ...

    def random(self) -> float:
        """A float in [0, 1), for jitter."""
        ...


class SystemSeam:
    """The operating system's clocks and randomness. Imports at use: commands that need none of
    it start faster."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    # Asked twice for each frame of audio.
    monotonic = staticmethod(time.monotonic)

    def new_id(self) -> str:
        from uuid import uuid4

        return str(uuid4())

    def token(self) -> str:
        from secrets import token_urlsafe

        return token_urlsafe(16)

    def random(self) -> float:
        from random import random

        return random()
