"""Run a whole campaign, and print its seed and its summary."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

from voicecall.model import MediaPath

from .campaign import campaign

__all__ = ["killed"]

_log = logging.getLogger("voicecall.tests.crash")


async def killed(root: Path, kills: int, media: MediaPath) -> None:
    """A whole campaign, judged. ``VOICECALL_CRASH_SEED`` repeats the plan of an earlier one."""
    seed = int(os.environ.get("VOICECALL_CRASH_SEED") or random.SystemRandom().randrange(10**9))
    print(f"VOICECALL_CRASH_SEED={seed}")
    async with campaign(root, seed, media) as war:
        try:
            await war.run(kills)
        finally:
            print(f"gateway killed: {war.summary}")
            _log.warning("gateway killed: %s", war.summary)
    war.summary.check(kills)
