"""``kill -9`` of the gateway at random moments, with the exchange's ledger as the judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from .crash.verdict import check, killed

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_nothing_is_lost_at_twenty_kills(tmp_path: Path) -> None:
    check(await killed(tmp_path, 20), 20)
