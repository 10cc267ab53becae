"""Keypad tones that are to be played on a call, and how long a carrier takes for them."""

from __future__ import annotations

import re

from .errors import InvalidRequest

__all__ = ["check_digits", "only_waits", "tones_ms"]

_DIGITS = re.compile(r"[0-9*#wWpP,]+")
_MOST_DIGITS = 100

_TONE_MS = 200
"""A tone and the gap behind it, on the generous side."""
_WAITS_MS = {"w": 500, ",": 500, "W": 1000, "p": 1000, "P": 1000}


def check_digits(digits: str) -> str:
    """``digits`` without their spaces: ``0-9 * #``, and pauses, ``w`` and ``,`` of half a second,
    ``W``, ``p`` and ``P`` of one; at most 100 in all. Raises
    :exc:`~voicecall.errors.InvalidRequest`."""
    text = digits.replace(" ", "")
    if not _DIGITS.fullmatch(text):
        raise InvalidRequest(
            "digits may only contain 0-9, *, #, and the pauses w, W, p, P and comma"
        )
    if len(text) > _MOST_DIGITS:
        raise InvalidRequest(f"digits may be at most {_MOST_DIGITS} long, with their pauses")
    return text


def only_waits(digits: str) -> bool:
    """Whether nothing sounds in ``digits``."""
    return _WAITS_MS.keys() >= set(digits)


def tones_ms(digits: str) -> int:
    """Milliseconds that a carrier takes to play ``digits``, with the pauses among them, at most."""
    return sum(_WAITS_MS.get(digit, _TONE_MS) for digit in digits)
