"""An event that most often nobody waits for."""

from __future__ import annotations

import anyio

__all__ = ["LazyEvent"]


class LazyEvent:
    """What ``anyio.Event`` is; it makes one only once somebody waits."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: anyio.Event | None = None

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        if self._event is not None:
            self._event.set()

    async def wait(self) -> None:
        """Return at once where it is set."""
        if self._set:
            return
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()
