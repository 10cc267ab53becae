"""``kill -9`` of the gateway at random moments with ten live calls, judged by the exchange's
ledger. Twenty kills, some of them with calls over media sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicecall.model import MediaPath

from .crash.verdict import killed

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]


@pytest.mark.parametrize(("media", "kills"), [(MediaPath.NATIVE, 14), (MediaPath.STREAM, 6)])
async def test_nothing_is_lost_at_twenty_kills(
    tmp_path: Path, media: MediaPath, kills: int
) -> None:
    await killed(tmp_path, kills, media)
