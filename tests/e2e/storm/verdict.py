"""Run a whole campaign, and print its seed and its summary."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

from .campaign import campaign

__all__ = ["stormed"]

_log = logging.getLogger("voicecall.tests.storm")


async def stormed(root: Path, calls: int, kills: int) -> None:
    """A whole campaign, judged. ``VOICECALL_STORM_SEED`` repeats the plan of an earlier one."""
    seed = int(os.environ.get("VOICECALL_STORM_SEED") or random.SystemRandom().randrange(10**9))
    print(f"VOICECALL_STORM_SEED={seed}")
    async with campaign(root, seed) as storm:
        try:
            await storm.run(calls, kills)
        finally:
            print(f"calls in a storm: {storm}")
            _log.warning("calls in a storm: %s", storm)
    storm.check(calls, kills)
