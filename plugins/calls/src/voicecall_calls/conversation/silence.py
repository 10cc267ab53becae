"""Silence on a call: ask whether the caller is there, and finally say goodbye."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from voicecall.seam import Seam
from voicecall_calls.config import SilenceConfig

__all__ = ["SilenceWatch"]


class SilenceWatch:
    """Watches for silence, which does not count while ``busy`` returns true."""

    def __init__(self, config: SilenceConfig, seam: Seam, *, busy: Callable[[], bool]) -> None:
        self._config = config
        self._seam = seam
        self._busy = busy
        self._active_at = seam.monotonic()
        self._prompts = 0

    def note(self, *, caller: bool = False) -> None:
        """Something was heard or said; if by the ``caller``, prompts are counted anew."""
        self._active_at = self._seam.monotonic()
        if caller:
            self._prompts = 0

    async def run(
        self, ask: Callable[[], Awaitable[object]], give_up: Callable[[], Awaitable[bool]]
    ) -> None:
        """Call ``ask`` after each stretch of silence and ``give_up`` after the last one. Returns
        then, unless ``give_up`` returns false because the caller is there after all."""
        if not self._config.prompt_after_ms:
            return
        patience = self._config.prompt_after_ms / 1000
        # The conversation may have waited for its media socket.
        self.note()
        while True:
            if self._busy():
                self.note()
            idle = self._seam.monotonic() - self._active_at
            if idle < patience:
                await anyio.sleep(max(patience - idle, 0.05))
            elif self._prompts >= self._config.prompts:
                if await give_up():
                    return
                self.note(caller=True)
            else:
                self._prompts += 1
                await ask()
