"""Pressed keys, collected into what the caller means by them."""

from __future__ import annotations

from collections.abc import Callable

import anyio

__all__ = ["CallerKeys"]

_DIGIT_PAUSE_S = 1.0


class CallerKeys:
    """Keys that follow each other closely, or end with #, are told together."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._digits = ""
        self._pressed = anyio.Event()

    def press(self, digits: str) -> None:
        self._digits += digits
        self._pressed.set()

    async def run(self) -> None:
        while True:
            await self._pressed.wait()
            while self._digits and not self._digits.endswith("#"):
                self._pressed = anyio.Event()
                with anyio.move_on_after(_DIGIT_PAUSE_S) as pause:
                    await self._pressed.wait()
                if pause.cancelled_caught:
                    break
            self._pressed = anyio.Event()
            digits, self._digits = self._digits, ""
            self._tell(digits)
