"""Removes from a text what must not be read aloud: markup, URLs, emoji, control characters."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["clean"]

_ROUNDS = 4
_SPEAKABLE_SYMBOLS = frozenset("°№℃℉")
_UNSPOKEN_CATEGORIES = frozenset({"So", "Cs", "Co", "Cn"})
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_EMOJI_MARKS = frozenset("\ufe0e\ufe0f\u20e3")
_JOINERS = "\u200c\u200d"

_KEY = re.compile(r"[\"']spoken[\"']\s*:", re.IGNORECASE)
_IMAGE_OR_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:\s[^()]*)?\)")
_URL = re.compile(r"<?\b(?:https?://|www\.)[^\s<>]*?(?=[.,;:!?)\]\"'*_]*(?:[\s<>]|$))>?", re.I)
_TAG = re.compile(r"</?[a-z][^<>]{0,200}>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_DIRECTIVE = re.compile(r"\[\[\s*/?(?:tts\b|reply_to)[^\[\]]*\]\]", re.IGNORECASE)
"""Directives to OpenClaw's channels and speech: ``[[tts:voice=nova]]``,
``[[reply_to_current]]``."""
_CITATION = re.compile(r"\[\d{1,3}\]")
_WIDE_BLANK = re.compile(r"[^\S\n]+")
_LINE_BREAKS = re.compile(r" ?\n(?: ?\n)* ?")
_RULE = re.compile(r"^(?:[-*_=|:] ?){3,}$", re.MULTILINE)
_HEADING_OR_QUOTE = re.compile(r"^ ?(?:#{1,6}(?=\s|$)|>+) ?", re.MULTILINE)
_FIRST_BULLET = re.compile(r"\A\s?[-*+•] ")
_BULLET = re.compile(r"([.,;:!?]?) ?\n(?:[-*+•] |(?=\d{1,3}[.)]\s))")
_INNER_UNDERSCORE = re.compile(r"(?<=\w)_+(?=\w)")
_MARKS = re.compile(r"[*_`{}|\\]|~~")
_LONE_JOINER = re.compile(rf"(?<!\w)[{_JOINERS}]+|[{_JOINERS}]+(?!\w)")
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|\[\s*\]")
_BLANK_BEFORE_MARK = re.compile(r"\s+([.,;!?](?:\s|$))")
_BLANKS = re.compile(r"\s+")


def clean(text: str) -> str:
    """``text`` as it can be spoken, on one line; empty if nothing speakable is left.

    Bullets become commas, links keep their text, URLs and braces are removed.
    """
    for _ in range(_ROUNDS):
        # A removal can complete other markup (a link inside emphasis).
        cleaned = _once(text)
        if cleaned == text:
            break
        text = cleaned
    return text if any(character.isalnum() for character in text) else ""


def _once(text: str) -> str:
    text = _LINE_BREAKS.sub("\n", _WIDE_BLANK.sub(" ", text))
    text = _KEY.sub("", text)
    text = _IMAGE_OR_LINK.sub(r"\1", text)
    text = _URL.sub("", text)
    text = _TAG.sub("", text)
    text = _DIRECTIVE.sub("", text)
    text = _CITATION.sub("", text)
    text = _RULE.sub("", text)
    text = _HEADING_OR_QUOTE.sub("", text)
    text = _FIRST_BULLET.sub("", text)
    text = _BULLET.sub(lambda found: f"{found[1] or ','} ", text)
    text = _INNER_UNDERSCORE.sub(" ", text)
    text = _MARKS.sub("", text)
    text = "".join(_speakable(character) for character in text)
    text = _LONE_JOINER.sub("", text)
    text = _EMPTY_BRACKETS.sub("", text)
    text = _BLANK_BEFORE_MARK.sub(r"\1", text)
    return _BLANKS.sub(" ", text).strip()


def _speakable(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else " "
    if character in _SPEAKABLE_SYMBOLS or character in _JOINERS:
        return character
    if character in _EMOJI_MARKS or ord(character) in _SKIN_TONES:
        return ""
    category = unicodedata.category(character)
    if category in _UNSPOKEN_CATEGORIES or category == "Cf":
        return ""
    return " " if category == "Cc" else character
