"""Limits the log lines that strangers can cause.

The log is rotated by size: without a limit, enough refused requests would push everything else out
of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FloodFilter", "FloodLog", "RepeatLog"]

_MOST = 60
_SPAN_S = 60.0
_QUIET_S = 5.0
_MOST_REPEATED = 200


class _Kinds:
    """Lets through 60 lines a minute of each kind, that is of each text before formatting."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: dict[str, tuple[float, int]] = {}

    def admit(self, text: str) -> str | None:
        """The text to log, or None to leave the line out. The first line after a gap says how many
        were left out."""
        now = self._monotonic()
        since, count = self._seen.get(text, (now, 0))
        left_out = 0
        if now - since >= _SPAN_S:
            left_out = max(count - _MOST, 0)
            since, count = now, 0
        self._seen[text] = (since, count + 1)
        if count >= _MOST:
            return None
        return f"{text} ({left_out} lines like this one were left out)" if left_out else text


class FloodLog:
    """A limited ``logger`` for lines that requests of strangers cause."""

    def __init__(self, logger: logging.Logger, monotonic: Callable[[], float]) -> None:
        self._logger = logger
        self._kinds = _Kinds(monotonic)

    def info(self, text: str, *arguments: object) -> None:
        self._write(logging.INFO, text, arguments)

    def warning(self, text: str, *arguments: object) -> None:
        self._write(logging.WARNING, text, arguments)

    def error(self, text: str, *arguments: object) -> None:
        self._write(logging.ERROR, text, arguments)

    def _write(self, level: int, text: str, arguments: tuple[object, ...]) -> None:
        admitted = self._kinds.admit(text)
        if admitted is not None:
            self._logger.log(level, admitted, *arguments)


@dataclass(slots=True)
class _Repeated:
    first: float
    last: float
    times: int = 0


class RepeatLog(FloodLog):
    """Combines identical lines, as when a carrier repeats a refused request: the first one is
    written, and the number of the others once no more come, or after a minute. :meth:`settle` must
    be called periodically."""

    def __init__(self, logger: logging.Logger, monotonic: Callable[[], float]) -> None:
        super().__init__(logger, monotonic)
        self._monotonic = monotonic
        self._repeated: dict[tuple[int, str, tuple[object, ...]], _Repeated] = {}

    def settle(self, *, at_once: bool = False) -> None:
        """Write how often each line that has stopped coming was repeated; ``at_once``: every
        line."""
        now = self._monotonic()
        for line, one in [*self._repeated.items()]:
            if at_once or now - one.last >= _QUIET_S or now - one.first >= _SPAN_S:
                del self._repeated[line]
                if one.times:
                    level, text, arguments = line
                    more = (*arguments, one.times, one.last - one.first)
                    super()._write(level, f"{text} (%d more in %.0f s)", more)

    def _write(self, level: int, text: str, arguments: tuple[object, ...]) -> None:
        line, now = (level, text, arguments), self._monotonic()
        if (one := self._repeated.get(line)) is not None:
            one.last = now
            one.times += 1
            return
        if len(self._repeated) < _MOST_REPEATED:
            self._repeated[line] = _Repeated(now, now)
        super()._write(level, text, arguments)


class FloodFilter(logging.Filter):
    """The same limit for a library's logger. Errors are always logged."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._kinds = _Kinds(monotonic)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        admitted = self._kinds.admit(str(record.msg))
        if admitted is None:
            return False
        record.msg = admitted
        return True
