"""Cuts a growing text into sentences for speech synthesis.

The cuts depend on the text alone, never on the pieces in which it arrives: a cut is decided only
once everything it depends on has arrived.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["SentenceSplitter"]

_ENDERS = ".!?…"
_WIDE_ENDERS = "。！？"  # noqa: RUF001 (full-width punctuation is meant)
_CLOSERS = "\"'”’»)]*_"  # noqa: RUF001 (typographic quotes are meant)
_MARKS = frozenset(_ENDERS + _WIDE_ENDERS + _CLOSERS)
_LINE_MARKS = "-*+•#>"
_LIST_NUMBER = re.compile(r"\d{1,3}[.)]\s")
_PERHAPS_LIST_NUMBER = re.compile(r"\d{1,3}[.)]?\Z")
_AFTER_LIST_NUMBER = re.compile(r"(?:\A|\n)\s*\d{1,3}\.\Z")

_ABBREVIATIONS = re.compile(
    r"(?:dr|mrs?|ms|prof|rev|gen|sen|rep|gov|capt|col|sgt|lt|st|mt|ft|ave|blvd|rd|nos?|vol|ch|fig"
    r"|pp|vs|cf|e\.g|i\.e|viz|approx|dept|est|ext|tel|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov"
    r"|dec|mon|tue|wed|thu|fri|sat|sun|nr|bzw|z\.b|d\.h|usw|ca)\.",
    re.IGNORECASE,
)
_MAY_END = re.compile(r"(?:[ap]\.m|etc|inc|ltd|co|corp|jr|sr|u\.s|u\.k|e\.u)\.", re.IGNORECASE)
"""Abbreviations that end a sentence if a capital letter follows."""

_LAST_WORD = re.compile(r"[\w.]+$")
_PARAGRAPH_END = re.compile(r"[^\S\n]*\n[^\S\n]*\n")
_COMMA = re.compile(r"[,;:](?=\s)")
_WAIT = -1
_LONGEST_RUN = 200
"""After this many marks or blanks in a row a cut no longer waits for what follows them. Otherwise,
if a model wrote dots without end, each new one would cause all of them to be read again."""


class SentenceSplitter:
    """``feed`` returns the sentences that are complete, ``flush`` the rest.

    A sentence shorter than ``min_chars`` is joined with the next one of its paragraph, except the
    very first, which is returned at once. One longer than ``max_chars`` is cut, if possible at a
    comma. Sentences have no surrounding blanks and contain at least one letter or digit.
    """

    def __init__(self, *, min_chars: int = 16, max_chars: int = 220) -> None:
        self._min = min_chars
        self._max = max_chars
        self._buffer = ""
        self._read = 0
        """No sentence ends before this."""
        self._any = False

    def feed(self, text: str) -> list[str]:
        """Take more text; returns the sentences that it completed."""
        self._buffer = (self._buffer + text).lstrip()
        sentences = []
        while (cut := self._first_cut()) > 0:
            sentences.append(self._buffer[:cut].strip())
            self._buffer = self._buffer[cut:].lstrip()
            self._read = 0
            self._any = True
        return sentences

    def flush(self) -> list[str]:
        """What is left, as the last sentence, if there is anything to say."""
        rest = self._buffer.strip()
        self.drop()
        if not _has_words(rest):
            return []
        self._any = True
        return [rest]

    def drop(self) -> None:
        """Discard the text that is waiting."""
        self._buffer = ""
        self._read = 0

    def _first_cut(self) -> int:
        """Where the first sentence ends; 0 if that is not known yet."""
        text = self._buffer
        while self._read < len(text):
            at = self._read
            if at >= self._max:
                return self._cut_long(text)
            character = text[at]
            end = 0
            if character == "\n":
                end = _line_end(text, at)
            elif character in _ENDERS or character in _WIDE_ENDERS:
                end = _sentence_end(text, at)
            if end == _WAIT:
                return 0
            if end and not _has_words(text[:end]):
                self._read = max(end, at + 1)
                continue
            if end and (end >= self._min or not self._any or _PARAGRAPH_END.match(text, end)):
                return end
            self._read = at + 1
        return 0

    def _cut_long(self, text: str) -> int:
        head = text[: self._max]
        commas = [found.end() for found in _COMMA.finditer(head) if found.end() >= self._min]
        if commas:
            return commas[-1]
        blank = max(head.rfind(" "), head.rfind("\n"))
        return blank if blank >= self._min else self._max


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _skip(text: str, at: int, skipped: Callable[[str], bool]) -> int:
    end = min(at + _LONGEST_RUN, len(text))
    while at < end and skipped(text[at]):
        at += 1
    return at


def _line_end(text: str, at: int) -> int:
    """The end of a paragraph or list item at the line break ``at``; 0 for a wrapped line."""
    after = _skip(text, at, str.isspace)
    if after - at == _LONGEST_RUN:
        return at
    if after == len(text):
        return _WAIT
    if _PERHAPS_LIST_NUMBER.match(text, after):
        return _WAIT
    paragraph = text.count("\n", at, after) > 1
    item = text[after] in _LINE_MARKS or _LIST_NUMBER.match(text, after)
    return at if paragraph or item else 0


def _sentence_end(text: str, at: int) -> int:
    """The end of the sentence whose closing mark is at ``at``; 0 if the sentence continues."""
    end = _skip(text, at, _MARKS.__contains__)
    if end - at == _LONGEST_RUN:
        return end
    if end == len(text):
        return _WAIT
    marks = text[at:end]
    if any(mark in _WIDE_ENDERS for mark in marks):
        return end
    if not text[end].isspace():
        return 0
    after = _skip(text, end, str.isspace)
    if after - end == _LONGEST_RUN:
        return end
    if after == len(text):
        return _WAIT
    if "!" in marks or "?" in marks:
        return end
    following = text[after]
    if following.islower():
        return 0
    if "…" in marks or ".." in marks:
        return end if following.isupper() or following.isdigit() else 0
    return 0 if _is_abbreviated(text[: at + 1], following) else end


def _is_abbreviated(head: str, following: str) -> bool:
    """Whether the full stop that ends ``head`` belongs to an abbreviation, initial or number."""
    found = _LAST_WORD.search(head)
    if found is None:
        return False
    word = found.group()
    if _MAY_END.fullmatch(word):
        return not following.isupper()
    if _ABBREVIATIONS.fullmatch(word):
        return True
    initial = len(word) == 2 and word[0].isupper() and word[0] != "I"
    return initial or _AFTER_LIST_NUMBER.search(head) is not None
