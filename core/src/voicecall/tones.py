"""How long a carrier takes for keypad tones."""

from __future__ import annotations

__all__ = ["tones_ms"]

_TONE_MS = 200
"""A tone and the gap behind it, on the generous side."""
_WAITS_MS = {"w": 500, ",": 500, "W": 1000, "p": 1000, "P": 1000}


def tones_ms(digits: str) -> int:
    """Milliseconds that a carrier takes to play ``digits``, with the pauses among them, at most."""
    return sum(_WAITS_MS.get(digit, _TONE_MS) for digit in digits)
