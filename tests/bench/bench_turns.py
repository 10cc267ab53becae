"""The delay that voicecall itself adds to a turn of a streamed call.

    python -m tests.bench.bench_turns [calls] [turns of each]

Recogniser, agent and voice take no time: the recogniser knows the text with the frame in which the
utterance ends, the agent answers at once, and so does the voice. What is left is ours: sockets,
codec, line, turn taking, sentences, pacer, and the store.

*delay of a turn*: from the moment a phone writes the last frame of its utterance until the first
audio of the answer arrives. The silence after which a real recogniser takes an utterance for
finished (about half a second) comes on top of it.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
from tests.bench.whole import dial_in, gateway_process

from voicecall import ProviderInfo
from voicecall.agent import AgentBackend, AgentEvent, AgentTurn, TextDelta
from voicecall.audio import MULAW_8K, AudioFormat
from voicecall.providers import Provider, ProviderKind
from voicecall.transcription import (
    Final,
    SpeechStarted,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)
from voicecall.tts import PlainSpeechProvider
from voicecall_mock.exchange import Exchange
from voicecall_mock.exchange.line import PhoneLine
from voicecall_mock.exchange.playback import FRAME

_BEGIN, _END, _ANSWER = b"begin", b"end", b"answer"
_SPOKEN_FRAMES = 5
_ANSWER_MS = 600
_TEXT = "What are your opening hours?"
_PAUSE_S = (1.5, 2.5)
"""After the first audio of an answer, which leaves before it is played."""
_PATIENCE_S = 10
_GOAL_MS = 50


def _frame(content: bytes) -> bytes:
    return content.ljust(FRAME, b"\x55")


# --- in the gateway's process -----------------------------------------------------------------


class _Hearing(TranscriptionSession):
    def __init__(self) -> None:
        self._in, self._out = anyio.create_memory_object_stream[TranscriptionEvent](1000)
        self._utterance = 0
        self._bytes = 0

    def send_audio(self, audio: bytes) -> None:
        self._bytes += len(audio)
        at_ms = round(MULAW_8K.duration_ms(self._bytes))
        if _BEGIN in audio:
            self._utterance += 1
            self._in.send_nowait(SpeechStarted(utterance=self._utterance, at_ms=at_ms))
        elif _END in audio:
            self._in.send_nowait(Final(utterance=self._utterance, at_ms=at_ms, text=_TEXT))

    def commit(self) -> None:
        """An utterance ends with its frame."""

    async def finish(self) -> None:
        self._in.close()

    async def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        async for event in self._out:
            yield event


class _Recogniser(TranscriptionProvider):
    @asynccontextmanager
    async def session(self, options: TranscriptionOptions) -> AsyncIterator[_Hearing]:
        with anyio.CancelScope():
            yield _Hearing()


class _Agent(AgentBackend):
    async def reply(self, turn: AgentTurn) -> AsyncIterator[AgentEvent]:
        for word in ("We ", "are ", "open ", "until ", "six. ", "Do ", "come."):
            yield TextDelta(word)

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        """It has no memory."""


class _Voice(PlainSpeechProvider):
    @property
    def native_format(self) -> AudioFormat:
        return MULAW_8K

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        await anyio.lowlevel.checkpoint()
        silence = MULAW_8K.size(_ANSWER_MS) - FRAME
        yield _frame(_ANSWER) + b"\xff" * silence


def _offer(kind: ProviderKind, provider: Provider) -> ProviderInfo:
    return ProviderInfo(
        kind=kind, id="instant", label="Instant", factory=lambda config, context: provider
    )


def providers() -> Sequence[ProviderInfo]:
    return [
        _offer(ProviderKind.TRANSCRIPTION, _Recogniser()),
        _offer(ProviderKind.AGENT, _Agent()),
        _offer(ProviderKind.TTS, _Voice()),
    ]


# --- the phones -------------------------------------------------------------------------------


class Phone:
    """Says its text, hears the answer, and says the text again a while later."""

    def __init__(self, line: PhoneLine, turns: int) -> None:
        self.delays: list[float] = []
        """Seconds."""
        self._turns = turns
        self._saying: list[bytes] = []
        self._ended_at = 0.0
        self._answered = anyio.Event()
        assert line.stream is not None
        self._pass_time = line.exchange_frames
        self._feed = line.stream.playback.feed
        line.exchange_frames = self.exchange_frames  # type: ignore[method-assign]
        line.stream.playback.feed = self.feed  # type: ignore[method-assign]

    async def talk(self) -> None:
        for _ in range(self._turns):
            await anyio.sleep(random.uniform(*_PAUSE_S))
            self._answered = anyio.Event()
            self._saying = [_frame(_BEGIN), *[_frame(b"words")] * _SPOKEN_FRAMES, _frame(_END)]
            with anyio.fail_after(_PATIENCE_S):
                await self._answered.wait()

    def exchange_frames(self, heard: bytes | None) -> bytes | None:
        self._pass_time(heard)
        if not self._saying:
            return None
        frame = self._saying.pop(0)
        if not self._saying:
            self._ended_at = time.perf_counter()
        return frame

    def feed(self, payload: bytes, now: float) -> None:
        if self._ended_at and _ANSWER in payload:
            self.delays.append(time.perf_counter() - self._ended_at)
            self._ended_at = 0.0
            self._answered.set()
        self._feed(payload, now)


async def talk(exchange: Exchange, calls: int, turns: int) -> list[float]:
    phones = [Phone(line, turns) for line in await dial_in(exchange, calls)]
    async with anyio.create_task_group() as tasks:
        for phone in phones:
            tasks.start_soon(phone.talk)
    return [delay for phone in phones for delay in phone.delays]


async def run(calls: int, turns: int) -> None:
    many = 2 * calls
    phone = {
        "streaming": {
            "enabled": True,
            "provider": "instant",
            "maxConnections": many,
            "maxPendingConnections": many,
            "maxPendingConnectionsPerIp": many,
        },
        "tts": {"provider": "instant"},
    }
    agents = {"agents": {"defaults": {"backend": "instant"}}}
    async with gateway_process(calls, agents, phone, providers) as (exchange, gateway):
        cpu, _ = gateway.usage()
        delays = await talk(exchange, calls, turns)
        cpu = gateway.usage()[0] - cpu
    cuts = statistics.quantiles(delays, n=100)
    print(f"turns of {calls} streamed calls: {len(delays)} of {calls * turns}")
    print(
        f"  delay of an answer, ms: p50 {cuts[49] * 1000:.1f}, p99 {cuts[98] * 1000:.1f}, "
        f"max {max(delays) * 1000:.1f}, ratio of p99 to the goal of {_GOAL_MS} ms "
        f"{cuts[98] * 1000 / _GOAL_MS:.2f}"
    )
    print(f"  gateway: {cpu * 1000 / len(delays):.1f} ms CPU a turn, its audio included")


def main(calls: int = 50, turns: int = 10) -> None:
    for one in sorted({1, calls}):
        anyio.run(run, one, turns * max(calls // one // 10, 1))


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
