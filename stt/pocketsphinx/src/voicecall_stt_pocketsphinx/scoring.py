"""How well the grammar fits an utterance, compared with free phones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

__all__ = ["Segment", "score"]

_LONG_WORD = 20  # frames; shorter words fit badly by chance
_WORD_ALLOWANCE = 2.0  # how much worse a long word may fit than the whole; figures: README.md


class Segment(Protocol):
    """A word or phone on the best path of a search, as the library reports it. Frames are counted
    from the start of the utterance; both ends are included."""

    @property
    def word(self) -> str: ...
    @property
    def start_frame(self) -> int: ...
    @property
    def end_frame(self) -> int: ...
    @property
    def ascore(self) -> float:
        """Acoustic likelihood, not its logarithm; 0 if it is too small for a float."""
        ...


def score(grammar: Sequence[Segment], phones: Sequence[Segment]) -> float:
    """How well the grammar fits, in thousandths of a nat per frame (0: as well as free phones;
    negative: worse). This is the fit of the whole utterance, or of its worst long word plus an
    allowance if that is lower.

    Both paths cover the same audio; ``grammar`` has at least one spoken word.
    """
    spoken = [part for part in grammar if not part.word.startswith("<")]
    frames = spoken[-1].end_frame - spoken[0].start_frame + 1
    whole = 1000 * (_fit(grammar) - _fit(phones)) / frames
    # A sentence that only begins like one of the grammar still fits well on average.
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
    """The part of the path's fit that falls within the frames of ``word``."""
    total = 0.0
    for part in path:
        first = max(part.start_frame, word.start_frame)
        last = min(part.end_frame, word.end_frame)
        if first <= last:
            total += _log(part) * (last - first + 1) / _length(part)
    return total
