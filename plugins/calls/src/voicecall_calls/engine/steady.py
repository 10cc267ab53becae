"""The clock for calls, which does not jump while a call is live."""

from __future__ import annotations

import logging
from collections.abc import Callable

from voicecall.seam import Seam

__all__ = ["SteadySeam"]

_log = logging.getLogger("voicecall.calls")

STEP_MS = 1000
"""A step of the wall clock larger than this means that it was set; smaller ones are followed."""


class SteadySeam:
    """Wraps a :class:`voicecall.seam.Seam`. While ``counting()`` is true, its wall clock advances
    evenly: deadlines are times of that clock, and if it were set, all would be due at once, or
    none for hours. Otherwise it follows the wall clock."""

    def __init__(self, seam: Seam, counting: Callable[[], bool]) -> None:
        self._wall_ms = seam.now_ms
        self.monotonic = seam.monotonic
        self.new_id = seam.new_id
        self.token = seam.token
        self.random = seam.random
        self._counting = counting
        self._ahead = self._wall_ms() - self._elapsed()
        """By how much the wall clock is ahead of the monotonic one."""
        self._told = False

    def now_ms(self) -> int:
        wall, steady = self._wall_ms(), self._ahead + self._elapsed()
        if abs(wall - steady) > STEP_MS and self._counting():
            if not self._told:
                self._told = True
                _log.warning("the clock was set: live calls keep the old time until all are over")
            return steady
        self._ahead += wall - steady
        self._told = False
        return wall

    def _elapsed(self) -> int:
        return round(self.monotonic() * 1000)
