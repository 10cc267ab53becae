"""Watches for a lack of file descriptors: without one every new connection is closed, and nothing
else reports it."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence

import anyio

__all__ = ["Descriptors", "shortage"]

LOOK_SECONDS = 1.0
CALM_LOOKS = 10
"""Consecutive successful checks until the problem counts as over: near the limit, descriptors come
and go."""

_log = logging.getLogger("voicecall.gateway")


def shortage() -> str | None:
    """The system's error message if no file descriptor is left, otherwise None."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return error.strerror
    return None


class Descriptors:
    """Checks once a second with ``look`` (by default :func:`shortage`)."""

    def __init__(self, look: Callable[[], str | None] = shortage) -> None:
        self._look = look
        self._problem: str | None = None

    def problems(self) -> Sequence[str]:
        """One sentence if the gateway cannot accept connections, otherwise nothing."""
        return () if self._problem is None else (self._problem,)

    async def watch(self) -> None:
        """Check until cancelled."""
        calm = 0
        while True:
            found = self._look()
            calm = 0 if found is not None else calm + 1
            if found is not None and self._problem is None:
                self._problem = (
                    f"new connections are closed at once ({found.lower()}): raise the limit of the"
                    " gateway's process (LimitNOFILE, ulimit -n)"
                )
                _log.error("%s", self._problem)
            elif calm >= CALM_LOOKS and self._problem is not None:
                self._problem = None
                _log.info("connections are accepted again")
            await anyio.sleep(LOOK_SECONDS)
