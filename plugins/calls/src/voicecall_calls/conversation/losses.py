"""Why the session of a vendor was lost, whatever it raised."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from voicecall.errors import ProviderError

__all__ = ["why_lost"]

_log = logging.getLogger("voicecall.calls")


def why_lost(error: Exception, whose: str) -> str:
    """The reason in words, also where tasks of the session failed. What no session may raise is
    logged; ``whose`` it was."""
    errors = list(_leaves(error))
    if not all(isinstance(one, ProviderError) for one in errors):
        _log.error("%s raised what it should not", whose, exc_info=error)
    said = (str(one) if isinstance(one, ProviderError) else type(one).__name__ for one in errors)
    return "; ".join(dict.fromkeys(said))


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
