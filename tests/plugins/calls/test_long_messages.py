"""Long messages to a media socket arrive whole on either event loop, also after others."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from websockets.asyncio.client import connect

from .boundary import CARRIERS, listening

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.mark.parametrize("size", [1000, 2048, 2049, 8000, 8192, 8193, 70_000])
async def test_messages_of_one_round(size: int) -> None:
    carrier = CARRIERS["twilio"]
    sent = [letter * length for letter, length in zip("abcd", (size, 5, size, 300), strict=True)]
    async with listening(carrier.provider()) as (server, desk, _):
        url = f"ws://127.0.0.1:{server.port}/voice/stream"
        async with connect(url, proxy=None, compression=None) as client:
            await client.send(carrier.start("good", "CA1", "MZ1"))
            while not desk.lines:
                await anyio.sleep(0.002)
            for message in sent:
                desk.lines[0].socket.send(message)
            assert [await client.recv() for _ in sent] == sent


async def test_messages_that_wait_for_a_slow_peer() -> None:
    carrier = CARRIERS["twilio"]
    sent = [chr(97 + number) * length for number, length in enumerate((9000, 20_000, 10) * 8)]
    async with listening(carrier.provider(), send_limit=10_000_000) as (server, desk, _):
        url = f"ws://127.0.0.1:{server.port}/voice/stream"
        async with connect(url, proxy=None, compression=None) as client:
            await client.send(carrier.start("good", "CA1", "MZ1"))
            while not desk.lines:
                await anyio.sleep(0.002)
            socket = desk.lines[0].socket
            client.transport.pause_reading()
            filling = "x" * 60_000
            filled = 0
            while socket.buffered < 100_000:
                socket.send(filling)
                filled += 1
                await anyio.sleep(0.002)
            for message in sent:
                socket.send(message)
            client.transport.resume_reading()
            for _ in range(filled):
                assert await client.recv() == filling
            assert [await client.recv() for _ in sent] == sent
