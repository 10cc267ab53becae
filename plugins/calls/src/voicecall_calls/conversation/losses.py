"""Why the session of a vendor was lost, whatever it raised."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from inspect import iscoroutinefunction
from typing import Any

from voicecall.errors import ProviderError

__all__ = ["check_session", "leaves", "why_lost"]

_log = logging.getLogger("voicecall.calls")


def check_session(session: Any) -> None:
    """Raises ``TypeError`` for a session that would hear nothing: nobody awaits its
    ``send_audio``."""
    if iscoroutinefunction(session.send_audio):
        kind = type(session)
        raise TypeError(
            f"{kind.__module__}.{kind.__qualname__}.send_audio is a coroutine function; it must be"
            " a plain one (def, not async def)"
        )


def why_lost(error: BaseException, whose: str) -> str:
    """The reason in words, also where tasks of the session failed. What no session may raise is
    logged; ``whose`` it was."""
    errors = list(leaves(error))
    if not all(isinstance(one, ProviderError) for one in errors):
        _log.error("%s raised an error that is not a ProviderError", whose, exc_info=error)
    said = (str(one) if isinstance(one, ProviderError) else type(one).__name__ for one in errors)
    return "; ".join(dict.fromkeys(said))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """``error`` itself, or those of the tasks that failed together."""
    if isinstance(error, ExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error
