"""The outbox of media sockets: together, in order, at the end of a round."""

from __future__ import annotations

import anyio
import pytest
from picows import WSMsgType

from voicecall.media import Message
from voicecall_calls.server.outbox import Outbox

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_messages_leave_in_order_at_the_end_of_the_round() -> None:
    outbox = Outbox()
    sent: list[Message] = []

    def write(kind: WSMsgType, message: Message) -> None:
        sent.append(message)

    for message in ("a", "b", "c"):
        outbox.put(write, WSMsgType.TEXT, message)
    assert sent == []
    await anyio.lowlevel.checkpoint()
    assert sent == ["a", "b", "c"]
    outbox.put(write, WSMsgType.TEXT, "d")
    await anyio.lowlevel.checkpoint()
    assert sent == ["a", "b", "c", "d"]


async def test_a_flush_sends_at_once_and_nothing_twice() -> None:
    outbox = Outbox()
    sent: list[Message] = []

    def write(kind: WSMsgType, message: Message) -> None:
        sent.append(message)
        if message == "a":
            outbox.put(write, WSMsgType.TEXT, "made while sending")

    outbox.put(write, WSMsgType.TEXT, "a")
    outbox.put(write, WSMsgType.TEXT, "b")
    outbox.flush()
    assert sent == ["a", "b"]
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    assert sent == ["a", "b", "made while sending"]
