"""When garbage is collected: no call should have to wait for it."""

from __future__ import annotations

import gc
from collections.abc import Callable

import anyio

__all__ = ["LOOK_SECONDS", "collect_rarely", "collect_while_idle"]

LOOK_SECONDS = 60.0
_COLLECT_EVERY = (2_000, 5, 1_000)
"""Thresholds of the three generations: young objects often, a few at a time, so that no call waits
for it; old ones rarely."""


def collect_rarely() -> None:
    """Spare collections what is there now and stays, and let those of old objects be rare: to look
    at all live calls takes longer than a frame of audio lasts."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_EVERY)


async def collect_while_idle(idle: Callable[[], bool]) -> None:
    """Collect old objects in each minute in which ``idle()``, until cancelled: those of a call that
    is over wait for that, as its parts know each other. Else some 20,000 calls would leave
    hundreds of megabytes, and those who are talking wait a second for it to be collected."""
    while True:
        await anyio.sleep(LOOK_SECONDS)
        # Collections of young objects since the last of all: without any, hardly anything is new.
        if gc.get_count()[2] and idle():
            gc.collect()
