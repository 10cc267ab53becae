"""Deadlines of all live calls: one task that wakes each call when its next one is due."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from voicecall import events as ev
from voicecall.errors import StoreError
from voicecall.seam import Seam
from voicecall_calls.news import News

if TYPE_CHECKING:
    from .lane import CallLane, Job

__all__ = ["Deadlines"]

_log = logging.getLogger("voicecall.calls")
_RETRY_MS = 1000


class Deadlines:
    """``spawn`` runs a task of the engine.

    A call usually has one entry in the queue. If its next deadline is postponed, the entry stays,
    and the call is queued again when the entry comes up: most deadlines are moved long before they
    are due. An entry does not keep a finished call alive.
    """

    def __init__(self, seam: Seam, spawn: Callable[[Job], None]) -> None:
        self._seam = seam
        self._spawn = spawn
        self._queue: list[tuple[int, int, weakref.ref[CallLane]]] = []
        self._numbers = itertools.count()
        self._wakes_at: float = math.inf
        self._failing = False
        self._earlier = News()

    def watch(self, lane: CallLane) -> None:
        """Must be called when the deadlines of ``lane`` are new or may have changed."""
        upcoming = lane.record.next_deadline
        if upcoming is not None and (lane.wakes_at is None or upcoming[0] < lane.wakes_at):
            self._put(lane, upcoming[0])

    def _put(self, lane: CallLane, at: int) -> None:
        lane.wakes_at = at
        heapq.heappush(self._queue, (at, next(self._numbers), weakref.ref(lane)))
        if at < self._wakes_at:
            self._earlier.tell()

    async def run(self) -> None:
        """Wake calls until cancelled. One task per engine."""
        while True:
            self._wake_due()
            if not self._queue:
                self._wakes_at = math.inf
                await self._earlier.wait()
                continue
            self._wakes_at = self._queue[0][0]
            await self._earlier.wait(max(self._wakes_at - self._seam.now_ms(), 0) / 1000)

    def _wake_due(self) -> None:
        now = self._seam.now_ms()
        while self._queue and self._queue[0][0] <= now:
            at, _, waiting = heapq.heappop(self._queue)
            lane = waiting()
            if lane is None or lane.wakes_at != at:
                # The call is long over, or has an earlier entry.
                continue
            lane.wakes_at = None
            upcoming = lane.record.next_deadline
            if upcoming is None:
                continue
            if upcoming[0] > now:
                self._put(lane, upcoming[0])
            else:
                self._spawn(lane.guarded(partial(self._due, lane)))

    async def _due(self, lane: CallLane) -> None:
        upcoming = lane.record.next_deadline
        if upcoming is None:
            return
        try:
            await lane.apply(ev.DeadlineDue(at=self._seam.now_ms(), kind=upcoming[1]))
        except StoreError as error:
            # The deadline remains until it can be committed. A line for each attempt would crowd
            # everything else out of the log.
            if not self._failing:
                _log.error(
                    "call %s: deadline %s, tried again each second: %s",
                    lane.record.call_id,
                    upcoming[1],
                    error,
                )
            self._failing = True
            self._put(lane, self._seam.now_ms() + _RETRY_MS)
        else:
            self._failing = False
            self.watch(lane)
