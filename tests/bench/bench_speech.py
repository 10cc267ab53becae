"""Speech that was made faster than it is spoken, paced for a telephone, compared with bare timers
that send as much.

    python -m tests.bench.bench_speech [lines] [seconds]

Each line has its pacer, marks that come back as from a carrier, and Twilio's codec; its socket
discards everything. The floor is one timer per line that sends pieces of 60 ms through the codec
and keeps no accounts. Both run on the gateway's event loop.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from voicecall.audio import MULAW_8K
from voicecall.media import MarkReached, Message, Started
from voicecall.seam import SystemSeam
from voicecall_calls.conversation.line import AudioLine
from voicecall_gateway.eventloop import new_event_loop
from voicecall_twilio.codec import TwilioCodec

PIECE_MS = 60
SETTLE_S = 0.5
_ON_THE_WAY_S = 0.2


def _started(codec: TwilioCodec, number: int) -> Started:
    sid = f"MZ{number:032x}"
    media = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    start = {"streamSid": sid, "callSid": f"CA{number:032x}", "mediaFormat": media}
    event = codec.decode(json.dumps({"event": "start", "streamSid": sid, "start": start}))
    assert isinstance(event, Started)
    return event


class _Socket:
    """A carrier that plays what it gets and returns the marks."""

    buffered = 0

    def __init__(self, line: AudioLine, number: int) -> None:
        self.codec = TwilioCodec()
        self._loop = asyncio.get_running_loop()
        self._attachment = line.attach(self, _started(self.codec, number))

    @property
    def heard_at(self) -> float:
        return time.monotonic()

    def play(self, audio: bytes) -> None:
        self.codec.audio(audio)

    def send(self, message: Message) -> None:
        event = self.codec.decode(message if isinstance(message, str) else message.decode())
        if isinstance(event, MarkReached):
            self._loop.call_later(_ON_THE_WAY_S, self._attachment.received, event)

    def listen(
        self,
        listener: Callable[[bytes], None],
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Nobody speaks."""

    def close(self, code: int, reason: str) -> None:
        """Nothing is open."""


async def ours(lines: int, seconds: float) -> float:
    """CPU seconds for ``seconds`` of speech on this many lines."""
    silence = b"\xff" * MULAW_8K.size((seconds + 2 * SETTLE_S) * 1000)
    tasks = []
    for number in range(lines):
        line = AudioLine(
            SystemSeam(),
            call_id="",
            marks=True,
            lost=lambda stream: None,
            digits=lambda *keys: None,
        )
        _Socket(line, number)
        tasks.append(asyncio.create_task(line.run()))
        line.write("item", silence)
        await asyncio.sleep(PIECE_MS / 1000 / lines)
    return await _measured(tasks, seconds)


async def floor(lines: int, seconds: float) -> float:
    piece = b"\xff" * MULAW_8K.size(PIECE_MS)

    async def speak(number: int) -> None:
        codec = TwilioCodec()
        _started(codec, number)
        for _ in range(math.ceil((seconds + 2 * SETTLE_S) * 1000 / PIECE_MS)):
            codec.audio(piece)
            await asyncio.sleep(PIECE_MS / 1000)

    tasks = []
    for number in range(lines):
        tasks.append(asyncio.create_task(speak(number)))
        await asyncio.sleep(PIECE_MS / 1000 / lines)
    return await _measured(tasks, seconds)


async def _measured(tasks: list[asyncio.Task[None]], seconds: float) -> float:
    await asyncio.sleep(SETTLE_S)
    began = time.process_time()
    await asyncio.sleep(seconds)
    used = time.process_time() - began
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return used


def main(lines: int = 100, seconds: float = 3.0, rounds: int = 3) -> None:
    def cpu(measure: Callable[[int, float], Awaitable[float]]) -> float:
        """Milliseconds per line and second."""

        async def run() -> float:
            return await measure(lines, seconds) * 1000 / lines / seconds

        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(run())

    pairs = [(cpu(ours), cpu(floor)) for _ in range(rounds)]
    mine, bare = (statistics.median(figures) for figures in zip(*pairs, strict=True))
    print(f"{lines} lines: {mine:.2f} ms CPU a line and second, bare timers {bare:.2f}")
    print(f"ratio of CPU to bare timers: {mine / bare:.2f}")


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, float), sys.argv[1:], strict=False)))
