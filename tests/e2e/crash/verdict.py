"""A whole campaign, and what it must have been to count."""

from __future__ import annotations

import logging
import os
import random
from pathlib import Path

from .campaign import RECOVERY_S, Summary, campaign

__all__ = ["check", "killed"]

_log = logging.getLogger("voicecall.tests.crash")


async def killed(root: Path, kills: int) -> Summary:
    """A whole campaign. ``VOICECALL_CRASH_SEED`` repeats the plan of an earlier one."""
    seed = int(os.environ.get("VOICECALL_CRASH_SEED") or random.SystemRandom().randrange(10**9))
    print(f"VOICECALL_CRASH_SEED={seed}")
    async with campaign(root, seed) as war:
        try:
            await war.run(kills)
        finally:
            print(f"gateway killed: {war.summary}")
            _log.warning("gateway killed: %s", war.summary)
    return war.summary


def check(summary: Summary, kills: int) -> None:
    """The campaign was one: there was something to lose at most kills."""
    assert summary.kills == kills
    assert summary.webhooks > 5 * kills
    assert summary.dials > 2 * kills
    assert summary.recovered + summary.finalised > 2 * kills
    assert summary.recovered > 0
    assert summary.max_recovery_s <= RECOVERY_S
