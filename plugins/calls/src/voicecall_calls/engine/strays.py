"""Calls whose first commit failed but may be stored: perhaps only the store's answer was lost."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from voicecall import events as ev
from voicecall.errors import StoreError
from voicecall.model import Direction

from .lane import CallLane

if TYPE_CHECKING:
    from .engine import CallEngine

__all__ = ["Strays"]

_log = logging.getLogger("voicecall.calls")
_MOST_PAUSE_S = 60.0


class Strays:
    """Looks for such calls; otherwise they would not be noticed before the next start."""

    def __init__(self, engine: CallEngine) -> None:
        self._engine = engine
        self._ids: list[str] = []
        self._looking = False

    def look_for(self, call_id: str) -> None:
        """Look for the call as soon as the store answers."""
        self._ids.append(call_id)
        if not self._looking:
            self._looking = True
            self._engine.spawn(self._look)

    async def _look(self) -> None:
        pause_s = 1.0
        try:
            while self._ids:
                call_id = self._ids.pop()
                try:
                    await self._settle(call_id)
                except StoreError:
                    self._ids.append(call_id)
                    await anyio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _MOST_PAUSE_S)
        finally:
            self._looking = False

    async def _settle(self, call_id: str) -> None:
        engine = self._engine
        record = await engine.store.load(call_id)
        if record is None or record.terminal or call_id in engine.lanes:
            return
        _log.warning("call %s was stored, although its commit failed", call_id)
        if record.direction is Direction.INBOUND:
            # It is ringing, and its webhook may never be delivered again.
            await engine.take_up(record)
            return
        # It was not placed, and the client that requested it got an error.
        refused = ev.DialRefused(at=engine.seam.now_ms(), error="the store answered too late")
        await CallLane(record, engine).apply(refused)
