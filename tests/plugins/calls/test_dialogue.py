"""Streamed dialogues on virtual time: greeting, turns, fillers, failures, keys, silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voicecall_testing.clock import virtual_backend
from voicecall_testing.harness import open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

GREETING = "Hello! How can I help you today?"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def test_a_greeting_a_turn_and_an_answer(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        assert phone.heard == [GREETING]
        phone.hears("Hello?")
        await phone.settle(3)
        assert phone.said == [("bot", GREETING), ("user", "Hello?"), ("bot", "Yes.")]
        assert phone.heard == [GREETING, "Yes."]
        await phone.hang_up()
        assert phone.record.terminal
