"""Keeps a model's planning out of what is spoken, without holding back a plain answer for long."""

from __future__ import annotations

import re

__all__ = ["Gate"]

_STARTS = ("thinking process", "reasoning:", "analysis:")
_OBSERVER = "the user "
_INTENTIONS = ("i should", "i need to", "i will")
_STOCK_PHRASES = re.compile(
    r"continue the conversation naturally|naturally continu|natural continuation"
    r"|keep(?:ing)? the conversation flowing",
    re.IGNORECASE,
)
_DECORATION = " \t\r\n*_#>\"'-"
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE_AND_MORE = re.compile(r"[.!?…][\"')*_]*\s+\w|[。！？]\w")  # noqa: RUF001 (full width)
_UNDECIDED_CHARS = 80


class Gate:
    """Holds plain text back while it may still be planning, or chatter before an object.

    It opens for good at the second sentence, after 80 characters or at :meth:`finish`; if the
    paragraph begins like planning, at the paragraph's end. Leading paragraphs of planning are
    dropped, even if nothing follows. A paragraph that only contains a stock phrase of planning is
    dropped if another paragraph follows.
    """

    def __init__(self) -> None:
        self._held = ""
        self._open = False

    def feed(self, text: str) -> str:
        """The text that may be spoken now."""
        if self._open:
            return text
        self._held = (self._held + text).lstrip()
        while self._held:
            end = _PARAGRAPH_END.search(self._held)
            paragraph = self._held[: end.start()] if end else self._held
            if _begins_like_planning(paragraph):
                verdict = None if end is None else _is_planning(paragraph)
            else:
                verdict = self._verdict(paragraph, complete=end is not None)
            if verdict is None:
                return ""
            if not verdict:
                self._open = True
                return self._take()
            if end is None:
                return ""
            self._held = self._held[end.end() :]
        return ""

    def _verdict(self, paragraph: str, *, complete: bool) -> bool | None:
        """Whether the held text is planning; None while that is open."""
        decided = _decided_at(self._held)
        if decided and decided <= len(paragraph):
            return _has_stock_phrase(self._held[:decided])
        if complete and _has_stock_phrase(paragraph):
            return True
        # After a short line and a blank line a JSON object may follow.
        return False if decided else None

    def finish(self) -> str:
        """The text has ended: returns what is held, unless it is planning."""
        rest = self._take()
        while rest:
            end = _PARAGRAPH_END.search(rest)
            paragraph = rest[: end.start()] if end else rest
            if not _is_planning(paragraph) and not (end and _has_stock_phrase(paragraph)):
                return rest
            rest = rest[end.end() :] if end else ""
        return ""

    def drop(self) -> None:
        """Forget what is held."""
        self._held = ""

    def _take(self) -> str:
        held, self._held = self._held, ""
        return held


def _begun(paragraph: str) -> str:
    return paragraph[:400].lstrip(_DECORATION).lower()


def _begins_like_planning(paragraph: str) -> bool:
    """Whether a paragraph with this beginning is planning or may turn out to be."""
    begun = _begun(paragraph)
    starts = (*_STARTS, _OBSERVER)
    return begun.startswith(starts) or any(start.startswith(begun) for start in starts)


def _is_planning(paragraph: str) -> bool:
    begun = _begun(paragraph)
    if begun.startswith(_STARTS):
        return True
    return begun.startswith(_OBSERVER) and any(word in paragraph.lower() for word in _INTENTIONS)


def _has_stock_phrase(text: str) -> bool:
    return _STOCK_PHRASES.search(text[:_UNDECIDED_CHARS]) is not None


def _decided_at(text: str) -> int:
    """How many characters of ``text`` show that an answer has begun; 0 if it is still open."""
    found = _SENTENCE_AND_MORE.search(text)
    places = [found.end()] if found else []
    if len(text) >= _UNDECIDED_CHARS:
        places.append(_UNDECIDED_CHARS)
    return min(places, default=0)
