"""The level of the line while nobody speaks, followed as it changes."""

from __future__ import annotations

from collections import deque

__all__ = ["NoiseFloor"]

_QUIETEST = 30.0  # of 32768: 61 dB below full scale, about the first steps of mu-law
_ABOVE = 2.0  # 6 dB


class NoiseFloor:
    """The quietest of the last ``frames``. Speech falls to it between syllables; a noise that
    does not becomes the floor itself when it has lasted for so long."""

    def __init__(self, frames: int) -> None:
        self._recent = deque([_QUIETEST] * frames, frames)

    def above(self, level: float) -> bool:
        """Whether the next frame stands out. ``level`` is its root mean square, of 32768."""
        self._recent.append(level)
        return level > _ABOVE * max(min(self._recent), _QUIETEST)
