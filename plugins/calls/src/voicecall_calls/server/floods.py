"""Keeps strangers from filling the log: whatever they send, they get only so many lines.

The log is rotated by size. Whoever sent enough requests without a signature would otherwise drive
everything else out of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["FloodLog"]

_logger = logging.getLogger("voicecall.calls.server")
_MOST = 60
_SPAN_S = 60.0


class FloodLog:
    """Writes 60 lines of one kind (one text before its arguments) a minute. The first of its kind
    after that says how many were left out."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kinds: dict[str, tuple[float, int]] = {}

    def info(self, text: str, *arguments: object) -> None:
        self._write(logging.INFO, text, arguments)

    def warning(self, text: str, *arguments: object) -> None:
        self._write(logging.WARNING, text, arguments)

    def _write(self, level: int, text: str, arguments: tuple[object, ...]) -> None:
        now = self._monotonic()
        since, count = self._kinds.get(text, (now, 0))
        left_out = 0
        if now - since >= _SPAN_S:
            left_out = max(count - _MOST, 0)
            since, count = now, 0
        self._kinds[text] = (since, count + 1)
        if count >= _MOST:
            return
        if left_out:
            text += f" ({left_out} lines like this one were left out)"
        _logger.log(level, text, *arguments)
