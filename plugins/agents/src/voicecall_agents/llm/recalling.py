"""Finds earlier turns that relate to a question, by shared words alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from pydantic_ai.messages import ModelMessage, TextPart, UserPromptPart

__all__ = ["exchange", "related"]

_LEAST_LETTERS = 4
"""Shorter words mostly occur in every sentence."""
_LEAST_SHARED = 2
_ASKED_CHARS = 300
_ANSWERED_CHARS = 600


def exchange(messages: Sequence[ModelMessage]) -> str:
    """A turn as a short text: the end of the question and the beginning of the answer."""
    parts = [part for message in messages for part in message.parts]
    asked = " ".join(
        part.content
        for part in parts
        if isinstance(part, UserPromptPart) and isinstance(part.content, str)
    )
    answered = " ".join(part.content for part in parts if isinstance(part, TextPart))
    if not answered.strip():
        return ""
    return f"Asked: {asked.strip()[-_ASKED_CHARS:]}\nAnswered: {answered.strip()[:_ANSWERED_CHARS]}"


def related(question: str, texts: Sequence[str], limit: int) -> list[str]:
    """At most ``limit`` texts that share at least two of the question's longer words (or its only
    one), best first and, among equals, later first. Rare words count more."""
    wanted = _words(question)
    if not wanted:
        return []
    words = [_words(text) for text in texts]
    frequency = Counter(word for one in words for word in one & wanted)
    weights = {word: math.log(1 + len(texts) / frequency[word]) for word in frequency}
    ranked = [
        (sum(weights[word] for word in one & wanted), number)
        for number, one in enumerate(words)
        if len(one & wanted) >= min(_LEAST_SHARED, len(wanted))
    ]
    return [texts[number] for _, number in sorted(ranked, reverse=True)[:limit]]


def _words(text: str) -> set[str]:
    found = re.findall(r"[^\W_]+", text.casefold())
    return {word for word in found if len(word) >= _LEAST_LETTERS or word.isdigit()}
