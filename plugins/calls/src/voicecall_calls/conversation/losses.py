"""Why a vendor's session was lost, from whatever it raised."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from voicecall.errors import ProviderError

__all__ = ["kind_of", "leaves", "refused", "why_lost"]

_log = logging.getLogger("voicecall.calls")


def why_lost(error: BaseException, whose: str) -> str:
    """The reason as text, also of an exception group. Logs an error that a session must not raise;
    ``whose`` session it was is for the log."""
    errors = list(leaves(error))
    if not all(isinstance(one, ProviderError) for one in errors):
        _log.error("%s raised an error that is not a ProviderError", whose, exc_info=error)
    said = (str(one) if isinstance(one, ProviderError) else type(one).__name__ for one in errors)
    return "; ".join(dict.fromkeys(said))


def kind_of(error: BaseException) -> str:
    """The name of the error's class; of several, that of the first ``ProviderError``."""
    errors = list(leaves(error))
    own = (one for one in errors if isinstance(one, ProviderError))
    return type(next(own, errors[0])).__name__


def refused(error: BaseException) -> bool:
    """Whether the vendor would refuse again, as it does with a wrong API key."""
    return any(isinstance(one, ProviderError) and not one.retryable for one in leaves(error))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """``error`` itself, or the errors of an exception group."""
    if isinstance(error, ExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error
