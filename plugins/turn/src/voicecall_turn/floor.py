"""Tracks the noise floor of the line: its level while nobody speaks."""

from __future__ import annotations

from collections import deque

__all__ = ["NoiseFloor"]

_QUIETEST = 30.0  # of 32768: 61 dB below full scale, about the first steps of mu-law
_ABOVE = 2.0  # 6 dB


class NoiseFloor:
    """The level of the quietest of the last ``frames`` frames. Speech falls to the floor between
    syllables; a noise that does not becomes the floor after that many frames."""

    def __init__(self, frames: int) -> None:
        self._recent = deque([_QUIETEST] * frames, frames)

    def above(self, level: float) -> bool:
        """Whether the next frame exceeds the floor. ``level`` is its root mean square, of
        32768."""
        self._recent.append(level)
        return level > _ABOVE * max(min(self._recent), _QUIETEST)
