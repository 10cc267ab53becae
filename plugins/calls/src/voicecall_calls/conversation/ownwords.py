"""Echoes of the bot's speech, which a phone without echo cancellation sends back to the recogniser.

A recogniser transcribes them like the caller's speech. Time and order give them away: a voice that
begins together with the bot's, before the caller could have understood a word, and says the same
from the beginning. No word comes back twice, and none after the bot's last: that is the caller, who
repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

__all__ = ["OwnWords"]

_BEGINS_S = 1.0
"""Longest time from the bot's first audio to the beginning of its echo: the round trip, and the
silence before the first word."""
_ALIKE = 0.7
"""Share of an echo's words that must match: some are misunderstood."""
_SLACK = 2
"""Words of the bot that may be missing in an echo."""
_KNOWN = 2
"""After this many echoes, the line is known to have one."""
_GONE = 3
"""After this many of the bot's utterances without an echo, the line no longer counts as having one:
phones learn to cancel echoes."""
_FEWEST_WORDS = 3
"""Fewer words may be an answer or a greeting, unless the bot fell silent at once."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff"
"""Thai, Lao, Burmese, Khmer, Chinese and Japanese are written without spaces: a character is
matched like a word and counts as half a word."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_HALF = re.compile(f"[{_UNSPACED}]")
_APOSTROPHE = re.compile("(?<=\\w)['\u2019](?=\\w)")


class OwnWords:
    """Recognises utterances that are echoes of the bot. One per call.

    ``said`` returns the bot's last utterances, the newest last, each as its sentences. Times are
    seconds on a monotonic clock."""

    def __init__(self, said: Callable[[], Sequence[Sequence[str]]] = tuple) -> None:
        self._said = said
        self._sounds_at = 0.0
        self._sounding: Sequence[str] | None = None
        self._goes_on = False
        """The bot's voice has gone on after a pause."""
        self._beginning: Sequence[Sequence[str]] = ()
        """What the present utterance may repeat from the beginning."""
        self._anywhere: Sequence[Sequence[str]] = ()
        """What the present utterance may repeat any part of."""
        self._fewest = _FEWEST_WORDS
        self._echoes = 0
        self._without = 0
        """Utterances of the bot in a row that have not come back."""
        self._back: tuple[Sequence[str], int] = ((), 0)
        """The utterance that came back last, and how many of its words did."""
        self._reached: tuple[Sequence[str], int] = self._back
        """The same if the present utterance is an echo."""

    @property
    def known(self) -> bool:
        """The line is known to have an echo."""
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
        """The bot's previous utterance is over: count it if it had no echo."""
        if len(_words(*(self._sounding or ()))) < _FEWEST_WORDS:
            return
        self._without = 0 if self._sounding is self._back[0] else self._without + 1
        if self._without >= _GONE:
            self._echoes = 0

    def began(self, now: float, *, over_bot: bool, stops_it: bool) -> None:
        """An utterance began at ``now``. ``over_bot``: the bot was speaking. ``stops_it``: the bot
        falls silent for it, so an echo may be a single word."""
        known = self.known
        said = tuple(self._said())
        in_time = (over_bot or known) and 0 <= now - self._sounds_at <= _BEGINS_S
        if self._goes_on and said and said[-1] is not self._back[0]:
            # Nothing came back before the pause.
            in_time = False
        self._beginning = said[-1:] if in_time else ()
        self._anywhere = said if known and over_bot else ()
        self._fewest = 1 if known or stops_it else _FEWEST_WORDS

    def repeated(self, text: str) -> bool:
        """Whether ``text`` of the present utterance is an echo of what the bot says."""
        words = _words(text)
        size = _size(words)
        if size < self._fewest:
            return False
        if size >= _FEWEST_WORDS and self._anywhere:
            return self._repeats(words, self._anywhere, begins=False)
        asked = sum(_size(_words(*sentences)) for sentences in self._beginning)
        if not self.known and asked < _FEWEST_WORDS:
            # The answer to so short a question may come as early as its echo.
            return False
        return self._repeats(words, self._beginning, begins=True)

    def _repeats(
        self, words: Sequence[str], utterances: Sequence[Sequence[str]], *, begins: bool
    ) -> bool:
        """Whether ``words`` match ``utterances``, from the start if ``begins``; notes how far."""
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
            # Some words come after the bot's last one.
            return False
        self._reached = to_come[reached - 1][:2]
        return True

    def _to_come(self, utterances: Sequence[Sequence[str]]) -> list[tuple[Sequence[str], int, str]]:
        """The words that have not come back yet, each with its utterance and its number in it."""
        found: list[tuple[Sequence[str], int, str]] = []
        for sentences in utterances:
            numbered = [(sentences, n, word) for n, word in enumerate(_words(*sentences), 1)]
            back, count = self._back
            if sentences is back:
                # A word that was cut by a pause may come back twice.
                found = numbered[max(count - self._goes_on, 0) :]
            else:
                found += numbered
        return found

    def came_back(self) -> bool:
        """Count the present utterance as an echo. Whether this makes the echo known."""
        self._echoes += 1
        self._back = self._reached
        return self._echoes == _KNOWN


def _words(*texts: str) -> list[str]:
    return _WORD.findall(_APOSTROPHE.sub("", " ".join(texts).casefold()))


def _size(words: Sequence[str]) -> float:
    return sum(0.5 if _HALF.fullmatch(word) else 1 for word in words)
