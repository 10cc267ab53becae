"""The bot's own words, come back over the line: from a loudspeaker into a microphone, with nothing
between them that takes the echo out.

A recogniser understands them as well as the caller's. What gives them away is their time: a voice
that begins together with the bot's, before anybody could have understood a word, and says the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import chain

__all__ = ["OwnWords"]

_BEGINS_S = 1.0
"""From the bot's first audio to the begin of its echo, at most: the way there and back, and the
silence in front of a first word."""
_BEHIND_S = 0.5
"""So long after the bot an echo that is known can begin."""
_ALIKE = 0.7
"""Of the words: an echo is misunderstood in places."""
_KNOWN = 2
"""So many echoes are no accident."""
_FEWEST_WORDS = 3
"""Less may be an answer, or a greeting, unless the bot fell silent at once."""
_WORD = re.compile(r"[\u2e80-\u9fff]|\w+")
"""Chinese and Japanese have no spaces: a character is a word."""


class OwnWords:
    """One a call. ``said`` gives what the bot said, the newest last, each the sentences of one
    utterance. Times are seconds on a monotonic clock."""

    def __init__(self, said: Callable[[], Sequence[Sequence[str]]] = tuple) -> None:
        self._said = said
        self._sounds_at = self._stopped_at = 0.0
        self._repeatable: Sequence[Sequence[str]] = ()
        """What the present utterance of the caller's may repeat."""
        self._fewest = _FEWEST_WORDS
        self._echoes = 0

    @property
    def known(self) -> bool:
        """The line is known to give the bot's words back."""
        return self._echoes >= _KNOWN

    def sounds(self, now: float) -> None:
        """The bot's voice begins, or goes on after a pause."""
        self._sounds_at = now

    def stopped(self, now: float) -> None:
        """The bot is silent."""
        self._stopped_at = now

    def began(self, now: float, *, over_bot: bool, stops_it: bool) -> None:
        """An utterance began at ``now``, while the bot spoke or not. ``stops_it``: the bot falls
        silent for it, and an echo may be no more than a word."""
        known = self.known
        in_time = (over_bot or known) and 0 <= now - self._sounds_at <= _BEGINS_S
        follows = known and (over_bot or now - self._stopped_at <= _BEHIND_S)
        if in_time or follows:
            # What an echo begins with may be the end of what came before.
            self._repeatable = tuple(self._said())[0 if known else -1 :]
        else:
            self._repeatable = ()
        self._fewest = 1 if in_time and (known or stops_it) else _FEWEST_WORDS

    def repeated(self, text: str) -> bool:
        """Whether ``text`` of the present utterance is what the bot says itself."""
        words = _words(text) if self._repeatable else []
        if len(words) < self._fewest:
            return False
        said = _words(" ".join(chain.from_iterable(self._repeatable)))
        blocks = SequenceMatcher(None, words, said, autojunk=False).get_matching_blocks()
        return sum(block.size for block in blocks) >= _ALIKE * len(words)

    def came_back(self) -> bool:
        """Count an echo. Whether the line is known by it, for the first time."""
        self._echoes += 1
        return self._echoes == _KNOWN


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
