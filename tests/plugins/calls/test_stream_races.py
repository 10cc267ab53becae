"""Media sockets that were requested twice: the call settles on one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import telephony as tel
from voicecall.errors import ProviderUnavailable
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import ScriptedCarrier
from voicecall_testing.harness import open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def test_a_stream_that_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Otherwise each replacement would be the next loss, for ever."""
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


class Answerless(ScriptedCarrier):
    """Opens the first stream that it is asked for again, and does not answer for a second."""

    async def perform(self, call: tel.CallRef, action: tel.Action) -> None:
        await super().perform(call, action)
        if len(self.performed_of(tel.AttachStream)) == 1 and isinstance(action, tel.AttachStream):
            await anyio.sleep(1)
            raise ProviderUnavailable("no answer", provider="scripted")


@pytest.mark.parametrize("then", ["it is lost", "keys take its place"])
async def test_a_late_retry_replaces_nothing_that_came_of_its_first_attempt(
    tmp_path: Path, then: str
) -> None:
    async with open_phone(tmp_path, carrier=Answerless()) as phone:
        phone.takes_tones = False
        await phone.call_in()
        await phone.settle(3)
        phone.socket.drop()
        await phone.settle(1.2)
        assert len(phone.sockets) == 2
        # Meanwhile the next one is on its way, when the first attempt counts as failed.
        if then == "it is lost":
            phone.opens_streams = False
            phone.socket.drop()
            await phone.settle(1.5)
            _, asked = phone.carrier.performed_of(tel.AttachStream)
            assert isinstance(asked, tel.AttachStream)
            await phone.attach(asked.stream.token)
        else:
            assert phone.lane.conversation is not None
            await phone.lane.conversation.play_digits("123")
            assert len(phone.carrier.performed_of(tel.AttachStream)) == 1
        await phone.settle(5)
        assert len(phone.sockets) == 3
        assert phone.record.stream_id == phone.socket.stream_id
