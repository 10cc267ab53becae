"""The outbox of media sockets: together, in order, at the end of a round."""

from __future__ import annotations

import anyio
import pytest

from voicecall.media import Message
from voicecall_calls.server.outbox import Outbox

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Socket:
    """Keeps what it sends; on ``a`` it has something more to send."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.sent: list[Message] = []

    def deliver(self, message: Message) -> None:
        self.sent.append(message)
        if message == "a":
            self.outbox.put(self, "made while sending")


async def test_messages_leave_in_order_at_the_end_of_the_round() -> None:
    outbox = Outbox()
    socket = Socket(outbox)
    for message in ("1", "2", "3"):
        outbox.put(socket, message)
    assert socket.sent == []
    await anyio.lowlevel.checkpoint()
    assert socket.sent == ["1", "2", "3"]
    outbox.put(socket, "4")
    await anyio.lowlevel.checkpoint()
    assert socket.sent == ["1", "2", "3", "4"]


async def test_a_flush_sends_at_once_and_nothing_twice() -> None:
    outbox = Outbox()
    socket = Socket(outbox)
    outbox.put(socket, "a")
    outbox.put(socket, "b")
    outbox.flush()
    assert socket.sent == ["a", "b"]
    for _ in range(3):
        await anyio.lowlevel.checkpoint()
    assert socket.sent == ["a", "b", "made while sending"]
