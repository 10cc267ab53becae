"""Keeping the store small: calls that are over and old are dropped now and then."""

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
"""A command that only looks at what is stored is over by then."""
EVERY_S = 3600.0


@asynccontextmanager
async def retaining(
    store: CallStore, seam: Seam, wanted: Callable[[], RetentionConfig]
) -> AsyncIterator[None]:
    """While entered, keep what is ``wanted`` by then: soon, and every hour."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_keep, store, seam, wanted, name="retention")
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


async def _keep(store: CallStore, seam: Seam, wanted: Callable[[], RetentionConfig]) -> None:
    await anyio.sleep(FIRST_S)
    while True:
        bounds = wanted()
        try:
            gone = await store.prune(seam.now_ms(), keep_calls=bounds.calls, keep_days=bounds.days)
        except StoreError as error:
            _log.warning("old calls stay in the store for another hour: %s", error)
        except Exception:  # noqa: BLE001 (a store of somebody else; calls must not end for this)
            _log.exception("old calls stay in the store for another hour")
        else:
            if gone:
                _log.info("old calls deleted from the store: %d", gone)
        await anyio.sleep(EVERY_S)
