"""A call's line over real sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import anyio
import pytest
from websockets.asyncio.client import connect

from voicecall.media import Started, Upgrade
from voicecall.seam import SystemSeam
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.ports import Attachment, MediaSocket

from .boundary import CARRIERS, Carrier, Desk, listening

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

FRAME = b"\x7f" * 160
FRAMES = 110
"""At 20 ms each."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=sorted(CARRIERS))
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return CARRIERS[request.param]


def _line() -> AudioLine:
    seam = SystemSeam()
    return AudioLine(seam, marks=True, lost=lambda stream: None, digits=lambda *keys: None)


@dataclass
class EchoDesk(Desk):
    """Its one call returns the caller's audio."""

    line: AudioLine = field(default_factory=_line)

    async def admit(self, started: Started, upgrade: Upgrade, socket: MediaSocket) -> Attachment:
        attachment = self.line.attach(socket, started)
        self.line.listener = lambda audio: self.line.write("a", audio)
        return attachment


async def test_audio_comes_back_whole_and_with_few_marks(carrier: Carrier) -> None:
    desk = EchoDesk()
    async with listening(carrier.provider(), desk) as (server, _, _client):
        url = f"ws://127.0.0.1:{server.port}/voice/stream"
        async with connect(url, proxy=None, compression=None) as client:
            await client.send(carrier.start("good", "CA1", "MZ1"))
            came: list[str] = []
            for _ in range(FRAMES):
                await client.send(carrier.audio(FRAME))
                came.append(str(await client.recv()))
                await anyio.sleep(0.02)
            while sum("mark" not in message for message in came) < FRAMES:
                came.append(str(await client.recv()))
    marks = [message for message in came if json.loads(message)["event"] == "mark"]
    # One after 240 ms, then one a second.
    assert 2 <= len(marks) <= 4
    assert desk.line.pacer.size("a") == FRAMES * len(FRAME)
