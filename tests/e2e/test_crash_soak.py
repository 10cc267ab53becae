"""``kill -9`` of the gateway at random moments, with the exchange's ledger as the judge."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .crash.verdict import check, killed

pytestmark = [pytest.mark.soak, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_nothing_is_lost_at_many_kills(tmp_path: Path) -> None:
    kills = int(os.environ.get("VOICECALL_SOAK_KILLS", "1000"))
    check(await killed(tmp_path, kills), kills)
