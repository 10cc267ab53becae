"""Why the session of a vendor was lost, whatever it raised."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from voicecall.errors import ProviderError

__all__ = ["kind_of", "leaves", "refused", "why_lost"]

_log = logging.getLogger("voicecall.calls")


def why_lost(error: BaseException, whose: str) -> str:
    """The reason in words, also where tasks of the session failed. What no session may raise is
    logged; ``whose`` it was."""
    errors = list(leaves(error))
    if not all(isinstance(one, ProviderError) for one in errors):
        _log.error("%s raised an error that is not a ProviderError", whose, exc_info=error)
    said = (str(one) if isinstance(one, ProviderError) else type(one).__name__ for one in errors)
    return "; ".join(dict.fromkeys(said))


def kind_of(error: BaseException) -> str:
    """The class of the error; of several, of the first one that a session may raise."""
    errors = list(leaves(error))
    own = (one for one in errors if isinstance(one, ProviderError))
    return type(next(own, errors[0])).__name__


def refused(error: BaseException) -> bool:
    """Whether the vendor would say the same again, as of a key that it does not accept."""
    return any(isinstance(one, ProviderError) and not one.retryable for one in leaves(error))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """``error`` itself, or those of the tasks that failed together."""
    if isinstance(error, ExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error
