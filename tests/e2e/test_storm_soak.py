"""``VOICECALL_SOAK_CALLS`` (500) calls over a faulty carrier, with one kill per ten calls."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .storm.verdict import stormed

pytestmark = [pytest.mark.soak, pytest.mark.anyio]


async def test_many_calls_end_as_they_really_ended(tmp_path: Path) -> None:
    calls = int(os.environ.get("VOICECALL_SOAK_CALLS", "500"))
    await stormed(tmp_path, calls, max(3, calls // 10))
