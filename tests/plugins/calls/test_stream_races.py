"""Media sockets that were asked for twice: the call settles on one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voicecall import telephony as tel
from voicecall_testing.clock import virtual_backend
from voicecall_testing.harness import open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def test_a_stream_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Else each replacement would be the next loss, for ever."""
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(3)
        await phone.engine.issue_tokens(phone.record, ["asked for before"])
        phone.socket.drop()
        await phone.settle(0.05)
        lost = phone.record
        assert lost.stream_id is None
        await phone.attach("asked for before")
        await phone.settle(5)
        assert len(phone.sockets) == 2
        assert phone.record.stream_id == phone.socket.stream_id
        assert not any(isinstance(each, tel.AttachStream) for each in phone.carrier.performed)
