"""Random bytes sent to the port: the server answers or closes, and keeps working."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from websockets.frames import Frame, Opcode

from voicecall_calls.server import CallServer

from .boundary import CARRIERS, Carrier, listening

pytestmark = [
    pytest.mark.integration,
    pytest.mark.anyio,
    pytest.mark.usefixtures("backstage"),
]

COUNT = 300
UPGRADE = (
    b"GET /voice/stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
WEBHOOK = (
    b"POST /voice/webhook?callId=c-1 HTTP/1.1\r\nHost: a\r\nX-Twilio-Signature: c2ln\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 10\r\n\r\nCallSid=CA"
)
CHUNKED = (
    b"POST /voice/webhook HTTP/1.1\r\nHost: a\r\nX-Twilio-Signature: c2ln\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nCallS\r\n5\r\nid=CA\r\n0\r\n\r\n"
)
SPLINTERS = [
    b"\r\n", b"\n", b"\x00", b" ", b":", b"\xff", b"HTTP/1.1", b"Content-Length: 5\r\n", b"%00",
    b"Transfer-Encoding: chunked\r\n", b"Upgrade: h2c\r\n", b"Connection: close\r\n", b"-1", b"//",
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n", b"99999999999999999999", b"\x81", b"\x88",
    b"\x89\x80", b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x80", b"\x00\x80", b"a" * 500,
]  # fmt: skip


@pytest.fixture(params=sorted(CARRIERS))
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]


def damaged(chance: random.Random, sample: bytes, times: int) -> bytes:
    text = bytearray(sample)
    for _ in range(times):
        at = chance.randrange(len(text) + 1)
        match chance.randrange(3):
            case 0:
                text[at:at] = chance.choice(SPLINTERS)
            case 1:
                del text[at : at + chance.randrange(1, 12)]
            case 2 if at < len(text):
                text[at] = chance.randrange(256)
    return bytes(text)


def frames(chance: random.Random, carrier: Carrier) -> bytes:
    """A few messages of a media stream as a client sends them."""
    texts = [carrier.start("good", "CA1", "MZ1"), carrier.audio(b"\x7f" * 160), "{}"]
    whole = [Frame(Opcode.TEXT, text.encode()) for text in texts]
    whole += [Frame(Opcode.PING, b"p"), Frame(Opcode.CONT, b"c", fin=False)]
    whole += [Frame(Opcode.BINARY, b"\x00" * 40), Frame(Opcode.CLOSE, b"\x03\xe8")]
    sent = chance.sample(whole, chance.randrange(1, len(whole)))
    return b"".join(frame.serialize(mask=True) for frame in sent)


async def exchange(server: CallServer, *parts: bytes) -> bytes:
    """What the server answers to these bytes until it closes or sends nothing more."""
    answer = b""
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            for part in parts:
                await stream.send(part)
            await stream.send_eof()
            with anyio.move_on_after(5):
                while True:
                    answer += await stream.receive()
    return answer


@asynccontextmanager
async def watched(carrier: Carrier, caplog: pytest.LogCaptureFixture) -> AsyncIterator[CallServer]:
    """A server. Fails at the end if anything in it, or in the event loop, has failed."""
    failures: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    try:
        async with listening(carrier.provider(), pre_start_timeout_ms=300) as (server, _, client):
            yield server
            body = carrier.ringing()
            headers = carrier.signed(server.local_url, body)
            response = await client.post(server.local_url, content=body, headers=headers)
            assert response.status_code == 200
            while server.open_sockets:
                await anyio.sleep(0.01)
            assert server.pending_sockets == 0
    finally:
        loop.set_exception_handler(None)
    assert failures == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_requests(carrier: Carrier, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(21)
    seen: set[bytes] = set()
    async with watched(carrier, caplog) as server:
        for number in range(COUNT):
            sample = chance.choice([UPGRADE, WEBHOOK, CHUNKED])
            answer = await exchange(server, damaged(chance, sample, 1 + number % 4))
            assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
            seen.add(answer[9:12])
    assert b"500" not in seen
    assert seen >= {b"101", b"400", b"401", b"404"}


async def test_frames(carrier: Carrier, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(22)
    async with watched(carrier, caplog) as server:
        for number in range(COUNT):
            sent = damaged(chance, frames(chance, carrier), number % 4)
            answer = await exchange(server, UPGRADE, sent)
            assert answer.startswith(b"HTTP/1.1 101 ")
            _, _, after = answer.partition(b"\r\n\r\n")
            # A close frame is the last that is said, if anything is.
            assert after == b"" or after[0] in (0x88, 0x8A)
