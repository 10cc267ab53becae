"""Splits long texts into pieces that a speech provider accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["pieces"]

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s")  # noqa: RUF001 (typographic quotes are meant)


def pieces(text: str, longest: int) -> Iterator[str]:
    """``text`` in pieces of at most ``longest`` characters, cut after a sentence if possible, else
    at a blank, else anywhere."""
    while len(text) > longest:
        head = text[: longest + 1]
        ends = [found.end() - 1 for found in _SENTENCE_END.finditer(head)]
        cut = ends[-1] if ends else head.rfind(" ")
        cut = cut if cut > 0 else longest
        yield text[:cut]
        text = text[cut:].lstrip()
    if text:
        yield text
