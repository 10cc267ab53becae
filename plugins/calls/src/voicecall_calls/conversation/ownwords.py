"""The bot's own words, come back over the line: from a loudspeaker into a microphone, with nothing
between them that takes the echo out.

A recogniser understands them as well as the caller's. What gives them away is their time and their
order: a voice that begins together with the bot's, before anybody could have understood a word, and
says the same from the begin on. No word comes back twice, and none behind the bot's last: that is
the caller, who repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

__all__ = ["OwnWords"]

_BEGINS_S = 1.0
"""From the bot's first audio to the begin of its echo, at most: the way there and back, and the
silence in front of a first word."""
_ALIKE = 0.7
"""Of the words: an echo is misunderstood in places."""
_SLACK = 2
"""So many words of the bot's may be missing in an echo."""
_KNOWN = 2
"""So many echoes are no accident."""
_GONE = 3
"""After so many of the bot's utterances without one, phones have learned to take the echo out."""
_FEWEST_WORDS = 3
"""Less may be an answer, or a greeting, unless the bot fell silent at once."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff"
"""Thai, Lao, Burmese, Khmer, Chinese and Japanese have no spaces: a character is a word, and counts
as half of one."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_HALF = re.compile(f"[{_UNSPACED}]")
_APOSTROPHE = re.compile("(?<=\\w)['\u2019](?=\\w)")


class OwnWords:
    """One a call. ``said`` gives what the bot said, the newest last, each the sentences of one
    utterance. Times are seconds on a monotonic clock."""

    def __init__(self, said: Callable[[], Sequence[Sequence[str]]] = tuple) -> None:
        self._said = said
        self._sounds_at = 0.0
        self._sounding: Sequence[str] | None = None
        self._goes_on = False
        """The bot's voice does, behind a pause."""
        self._beginning: Sequence[Sequence[str]] = ()
        """What the present utterance of the caller's may repeat from its begin on."""
        self._anywhere: Sequence[Sequence[str]] = ()
        """What it may repeat any part of."""
        self._fewest = _FEWEST_WORDS
        self._echoes = 0
        self._without = 0
        """So many utterances of the bot's have not come back, one after the other."""
        self._back: tuple[Sequence[str], int] = ((), 0)
        """What came back last, and how many of its words."""
        self._reached: tuple[Sequence[str], int] = self._back
        """The same, if the present utterance is an echo."""

    @property
    def known(self) -> bool:
        """The line is known to give the bot's words back."""
        return self._echoes >= _KNOWN

    def sounds(self, now: float) -> None:
        """The bot's voice begins, or goes on after a pause."""
        said = self._said()
        newest = said[-1] if said else None
        self._goes_on = newest is not None and newest is self._sounding
        if not self._goes_on:
            self._look_back()
        self._sounds_at, self._sounding = now, newest

    def _look_back(self) -> None:
        """What was said last is over: whether its line still gives words back."""
        if len(_words(*(self._sounding or ()))) < _FEWEST_WORDS:
            return
        self._without = 0 if self._sounding is self._back[0] else self._without + 1
        if self._without >= _GONE:
            self._echoes = 0

    def began(self, now: float, *, over_bot: bool, stops_it: bool) -> None:
        """An utterance began at ``now``, while the bot spoke or not. ``stops_it``: the bot falls
        silent for it, and an echo may be no more than a word."""
        known = self.known
        said = tuple(self._said())
        in_time = (over_bot or known) and 0 <= now - self._sounds_at <= _BEGINS_S
        if self._goes_on and said and said[-1] is not self._back[0]:
            # Nothing came back up to the pause.
            in_time = False
        self._beginning = said[-1:] if in_time else ()
        self._anywhere = said if known and over_bot else ()
        self._fewest = 1 if known or stops_it else _FEWEST_WORDS

    def repeated(self, text: str) -> bool:
        """Whether ``text`` of the present utterance is what the bot says itself."""
        words = _words(text)
        size = _size(words)
        if size < self._fewest:
            return False
        if size >= _FEWEST_WORDS and self._anywhere:
            return self._repeats(words, self._anywhere, begins=False)
        asked = sum(_size(_words(*sentences)) for sentences in self._beginning)
        if not self.known and asked < _FEWEST_WORDS:
            # An answer to so short a question comes as early as its echo.
            return False
        return self._repeats(words, self._beginning, begins=True)

    def _repeats(
        self, words: Sequence[str], utterances: Sequence[Sequence[str]], *, begins: bool
    ) -> bool:
        to_come = self._to_come(utterances)
        said = [word for _, _, word in to_come]
        spare = min(_SLACK, len(words) // 2)
        first = 0
        if not begins:
            longest = SequenceMatcher(None, words, said, autojunk=False).find_longest_match()
            first = longest.b - longest.a
        skipped = max(first - spare, 0)
        near = said[skipped : first + len(words) + spare]
        blocks = SequenceMatcher(None, words, near, autojunk=False).get_matching_blocks()
        if sum(block.size for block in blocks) < _ALIKE * len(words):
            return False
        last = blocks[-2]
        reached = skipped + last.b + last.size
        if len(words) - last.a - last.size > len(said) - reached:
            # There are words behind the bot's last one.
            return False
        self._reached = to_come[reached - 1][:2]
        return True

    def _to_come(self, utterances: Sequence[Sequence[str]]) -> list[tuple[Sequence[str], int, str]]:
        """The words that have not come back yet, each with its utterance and its number there."""
        found: list[tuple[Sequence[str], int, str]] = []
        for sentences in utterances:
            numbered = [(sentences, n, word) for n, word in enumerate(_words(*sentences), 1)]
            back, count = self._back
            if sentences is back:
                # A word that a pause has cut may come back twice.
                found = numbered[max(count - self._goes_on, 0) :]
            else:
                found += numbered
        return found

    def came_back(self) -> bool:
        """Count the present utterance, which is an echo. Whether the line is known by it, for the
        first time."""
        self._echoes += 1
        self._back = self._reached
        return self._echoes == _KNOWN


def _words(*texts: str) -> list[str]:
    return _WORD.findall(_APOSTROPHE.sub("", " ".join(texts).casefold()))


def _size(words: Sequence[str]) -> float:
    return sum(0.5 if _HALF.fullmatch(word) else 1 for word in words)
