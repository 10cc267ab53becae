"""Fifty calls through a carrier with faults, by a gateway that is killed now and then."""

from __future__ import annotations

from pathlib import Path

import pytest

from .storm.verdict import stormed

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_fifty_calls_end_as_they_really_ended(tmp_path: Path) -> None:
    await stormed(tmp_path, 50, 5)
