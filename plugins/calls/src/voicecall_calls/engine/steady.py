"""The clock of the calls, which nobody sets while one is up."""

from __future__ import annotations

import logging
from collections.abc import Callable

from voicecall.seam import Seam

__all__ = ["SteadySeam"]

_log = logging.getLogger("voicecall.calls")

STEP_MS = 1000
"""What the wall clock moves by at once, if it is set; less than that is followed."""


class SteadySeam:
    """A :class:`voicecall.seam.Seam` on top of another, whose wall clock goes on evenly while
    ``counting()``: deadlines are times of that clock, and all would be due at once, or none for
    hours. Otherwise it is the wall clock as it was set."""

    def __init__(self, seam: Seam, counting: Callable[[], bool]) -> None:
        self._wall_ms = seam.now_ms
        self.monotonic = seam.monotonic
        self.new_id = seam.new_id
        self.token = seam.token
        self.random = seam.random
        self._counting = counting
        self._ahead = self._wall_ms() - self._elapsed()
        """Of the wall clock before the monotonic one."""
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
