"""Pressed keys, collected into one input."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import anyio

__all__ = ["CallerKeys"]

_DIGIT_PAUSE_S = 1.0

_Spawn: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], object]


class CallerKeys:
    """Collects keys until a second passes without one, or until #, and calls ``tell`` with them.
    Keys pressed before :meth:`begin` or after :meth:`pause` wait for :meth:`begin`."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._digits = ""
        self._spawn: _Spawn | None = None
        self._pressed: anyio.Event | None = None

    def begin(self, spawn: _Spawn) -> None:
        """Report keys from now on. ``spawn`` runs a task, from the first key until they are
        reported."""
        self._spawn = spawn
        if self._digits:
            self._collect_soon()

    def pause(self) -> None:
        """Report no keys until the next :meth:`begin`."""
        self._spawn = None

    def press(self, digits: str) -> None:
        self._digits += digits
        self._collect_soon()

    def _collect_soon(self) -> None:
        if self._pressed is not None:
            self._pressed.set()
        elif self._spawn is not None:
            self._pressed = anyio.Event()
            self._spawn(self._collect)

    async def _collect(self) -> None:
        while self._digits and not self._digits.endswith("#"):
            self._pressed = anyio.Event()
            with anyio.move_on_after(_DIGIT_PAUSE_S) as pause:
                await self._pressed.wait()
            if pause.cancelled_caught:
                break
        self._pressed = None
        if self._spawn is None:
            return
        digits, self._digits = self._digits, ""
        self._tell(digits)
