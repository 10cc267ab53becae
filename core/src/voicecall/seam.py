"""The one place where time, ids and randomness come from.

Waiting is ``anyio.sleep``: on a virtual event loop it takes no real time. Everything else that
is not a pure function of its inputs comes from a :class:`Seam`, so that a test can replay a whole
dialogue.
"""

from __future__ import annotations

import os
import time
from base64 import urlsafe_b64encode
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
        """A UUID in its usual text form, with at least 74 random bits. It may reveal when it was
        made, and is not a secret."""
        ...

    def token(self) -> str:
        """An unguessable text of 128 random bits, URL safe."""
        ...

    def random(self) -> float:
        """A float in [0, 1), for jitter."""
        ...


_DRAW = 256
_UUID_RANDOM = (0xFFF << 64) | ((1 << 62) - 1)
_UUID_VERSION_7 = (0x7 << 76) | (0x2 << 62)

# Many at a time: a call takes several, and asking the system gives up the interpreter's lock.
_drawn: list[bytes] = []
# A forked process must not hand out what its parent does.
os.register_at_fork(after_in_child=_drawn.clear)


def _128_bits() -> bytes:
    """Random bits, for one use. Threads share them: each element is popped once."""
    try:
        return _drawn.pop()
    except IndexError:
        drawn = os.urandom(16 * _DRAW)
        _drawn.extend(drawn[at : at + 16] for at in range(16, len(drawn), 16))
        return drawn[:16]


class SystemSeam:
    """The operating system's clocks and randomness."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    # Asked twice for each frame of audio.
    monotonic = staticmethod(time.monotonic)

    def new_id(self) -> str:
        """A UUID of version 7 (RFC 9562), which begins with the time: rows of calls that come
        together are neighbours in every index, so that a commit changes fewer pages."""
        random = int.from_bytes(_128_bits()) & _UUID_RANDOM
        number = self.now_ms() << 80 | _UUID_VERSION_7 | random
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def token(self) -> str:
        return urlsafe_b64encode(_128_bits()).rstrip(b"=").decode()

    def random(self) -> float:
        from random import random

        return random()
