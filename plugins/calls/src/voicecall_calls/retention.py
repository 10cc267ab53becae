"""Keeping the store small: old finished calls are deleted periodically."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio

from voicecall.errors import StoreError
from voicecall.seam import Seam
from voicecall.store import CallStore
from voicecall_calls.config import RetentionConfig

__all__ = ["EVERY_S", "FIRST_S", "retaining"]

_log = logging.getLogger("voicecall.calls")

FIRST_S = 5.0
"""Long enough for a command that only reads the store to finish first."""
EVERY_S = 3600.0
_DAY_MS = 24 * 3600 * 1000


@asynccontextmanager
async def retaining(
    store: CallStore, seam: Seam, wanted: Callable[[], RetentionConfig]
) -> AsyncIterator[None]:
    """While entered, prune the store soon and then every hour, within the bounds ``wanted`` then.

    Calls are deleted for their age only if they were also old by the clock of an hour ago: a clock
    that is wrong for a moment, perhaps while the machine starts, would make all of them look old.
    """
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_keep, store, seam, wanted, name="retention")
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


async def _keep(store: CallStore, seam: Seam, wanted: Callable[[], RetentionConfig]) -> None:
    await anyio.sleep(FIRST_S)
    ahead: int | None = None
    while True:
        bounds = wanted()
        wall, steady = seam.now_ms(), round(seam.monotonic() * 1000)
        # At time 0 nothing is old.
        now = 0 if ahead is None else min(wall, ahead + steady)
        ahead = wall - steady
        if 0 < now < wall - _DAY_MS:
            _log.warning(
                "the clock went forward by %d days: calls that are old only by the new time are"
                " kept for another hour, in case it is wrong",
                (wall - now) // _DAY_MS,
            )
        try:
            gone = await store.prune(now, keep_calls=bounds.calls, keep_days=bounds.days)
        except StoreError as error:
            _log.warning("old calls could not be deleted, next try in an hour: %s", error)
        except Exception:  # noqa: BLE001 (a store of somebody else; calls must not end for this)
            _log.exception("old calls could not be deleted, next try in an hour")
        else:
            if gone:
                _log.info("old calls deleted from the store: %d", gone)
        await anyio.sleep(EVERY_S)
