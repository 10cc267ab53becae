"""How well the grammar fits an utterance, compared with free phones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

__all__ = ["Segment", "score"]

_LONG_WORD = 20  # frames; shorter words fit badly by chance
_WORD_ALLOWANCE = 2.0  # that a long word may fit worse than the whole; README.md has the figures


class Segment(Protocol):
    """A word or phone on the best path of a search, as the library tells it: the frames are
    counted from the start of the utterance, both ends belong to it."""

    @property
    def word(self) -> str: ...
    @property
    def start_frame(self) -> int: ...
    @property
    def end_frame(self) -> int: ...
    @property
    def ascore(self) -> float:
        """Acoustic likelihood, not its logarithm; 0 where it is too small to be told."""
        ...


def score(grammar: Sequence[Segment], phones: Sequence[Segment]) -> float:
    """In thousandths of a nat a frame; 0 where the grammar fits as well as free phones. That of
    the whole utterance, or of its worst long word plus an allowance where this is lower.

    Both paths are over the same audio; ``grammar`` has one spoken word or more.
    """
    spoken = [part for part in grammar if not part.word.startswith("<")]
    frames = spoken[-1].end_frame - spoken[0].start_frame + 1
    whole = 1000 * (_fit(grammar) - _fit(phones)) / frames
    # A sentence that begins like one of the grammar's fits well on average.
    words = [
        1000 * (_log(word) - _fit_within(phones, word)) / _length(word) + _WORD_ALLOWANCE
        for word in spoken
        if _length(word) >= _LONG_WORD
    ]
    return min([whole, *words])


def _log(part: Segment) -> float:
    return math.log(part.ascore) if part.ascore > 0 else -math.inf


def _length(part: Segment) -> int:
    return part.end_frame - part.start_frame + 1


def _fit(path: Sequence[Segment]) -> float:
    return sum(_log(part) for part in path)


def _fit_within(path: Sequence[Segment], word: Segment) -> float:
    """The share of the path's fit that falls into the frames of ``word``."""
    total = 0.0
    for part in path:
        first = max(part.start_frame, word.start_frame)
        last = min(part.end_frame, word.end_frame)
        if first <= last:
            total += _log(part) * (last - first + 1) / _length(part)
    return total
