"""The only source of time, ids and randomness.

Everything that is not a pure function of its inputs comes from a :class:`Seam`, so that a test can
replay a whole dialogue. The exception is waiting: code waits by ``anyio.sleep``, which takes no
real time on a virtual event loop.
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
        """Wall clock, in milliseconds since the Unix epoch; for records and stored deadlines."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps; for durations and pacing."""
        ...

    def new_id(self) -> str:
        """A UUID in its usual text form, with at least 74 random bits. It may reveal when it was
        made and is not a secret."""
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

# Many at a time: a call needs several, and asking the system releases the interpreter's lock.
_drawn: list[bytes] = []
# A forked process must not use the same bits as its parent.
os.register_at_fork(after_in_child=_drawn.clear)


def _128_bits() -> bytes:
    """Random bits, never returned twice, not even to different threads."""
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

    # The function itself, without a wrapper: it is called twice for each frame of audio.
    monotonic = staticmethod(time.monotonic)

    def new_id(self) -> str:
        """A UUID of version 7 (RFC 9562), which begins with the time: rows of calls made at about
        the same time are neighbours in every index, so that a commit changes fewer pages."""
        random = int.from_bytes(_128_bits()) & _UUID_RANDOM
        number = self.now_ms() << 80 | _UUID_VERSION_7 | random
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def token(self) -> str:
        return urlsafe_b64encode(_128_bits()).rstrip(b"=").decode()

    def random(self) -> float:
        from random import random

        return random()
