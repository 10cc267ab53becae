"""``kill -9`` of the gateway at random moments with ten live calls, judged by the exchange's
ledger. Seven of ten kills hit carrier-native calls, three hit calls with media sockets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from voicecall.model import MediaPath

from .crash.verdict import killed

pytestmark = [pytest.mark.soak, pytest.mark.anyio]


@pytest.mark.parametrize(("media", "share"), [(MediaPath.NATIVE, 7), (MediaPath.STREAM, 3)])
async def test_nothing_is_lost_at_many_kills(tmp_path: Path, media: MediaPath, share: int) -> None:
    kills = int(os.environ.get("VOICECALL_SOAK_KILLS", "1000"))
    await killed(tmp_path, max(1, kills * share // 10), media)
