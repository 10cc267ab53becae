"""Keypad tones to play on a call, and how long they take."""

from __future__ import annotations

import re

from .errors import InvalidRequest

__all__ = ["check_digits", "only_waits", "tones_ms"]

_DIGITS = re.compile(r"[0-9*#wWpP,]+")
_MOST_DIGITS = 100

_TONE_MS = 200
"""A tone and the gap after it, rounded up generously."""
_WAITS_MS = {"w": 500, ",": 500, "W": 1000, "p": 1000, "P": 1000}


def check_digits(digits: str) -> str:
    """``digits`` without spaces. Allowed are ``0-9 * #`` and the pauses ``w`` and ``,`` (half a
    second), ``W``, ``p`` and ``P`` (one second), at most 100 characters. Raises
    :exc:`~voicecall.errors.InvalidRequest` otherwise."""
    text = digits.replace(" ", "")
    if not _DIGITS.fullmatch(text):
        raise InvalidRequest(
            "digits may only contain 0-9, *, #, and the pauses w, W, p, P and comma"
        )
    if len(text) > _MOST_DIGITS:
        raise InvalidRequest(f"digits may have at most {_MOST_DIGITS} characters, with pauses")
    return text


def only_waits(digits: str) -> bool:
    """Whether ``digits`` contains nothing but pauses."""
    return _WAITS_MS.keys() >= set(digits)


def tones_ms(digits: str) -> int:
    """The most milliseconds that a carrier takes to play ``digits``, including pauses."""
    return sum(_WAITS_MS.get(digit, _TONE_MS) for digit in digits)
