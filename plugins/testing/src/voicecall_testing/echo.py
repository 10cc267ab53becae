"""The echo: a full-duplex "model" that returns the caller's audio untouched.

For line checks and benchmarks. The echo is cut into responses of four to twelve seconds, so that a
call has about as many turns as a conversation, and calls that begin together do not all begin their
next responses together. When asked to greet or to say something, the model gives a short tone
instead; it drops the caller's audio during the tone, so that the echo is not delayed by it. While
muted, it returns silence.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any, Literal

import anyio.lowlevel

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl
from voicecall.audio import MULAW_8K, PCM16_8K, PCM16_16K, PCM16_24K, AudioFormat, Converter
from voicecall.realtime import (
    Interrupter,
    RealtimeCapabilities,
    RealtimeEvent,
    RealtimeOptions,
    RealtimeProvider,
    RealtimeSession,
    ResponseDone,
    ResponseStarted,
    Transcript,
)

__all__ = ["CAPABILITIES", "LINE_CHECK", "EchoProvider"]

LINE_CHECK = "line check"
"""The transcript of every response, except those to ``say``."""

CAPABILITIES = RealtimeCapabilities(
    formats=(MULAW_8K, AudioFormat("alaw", 8000), PCM16_8K, PCM16_16K, PCM16_24K),
    interrupts=Interrupter.MODEL,
)

_SHORTEST_MS = 4000
_LONGEST_MS = 12_000
_TONE_MS = 200
_TONE_HZ = 440
_TONE_LEVEL = 8000


class EchoProvider(RealtimeProvider):
    """The echo as a voice model. ``draw`` gives the length of the next response in milliseconds;
    the default is two seconds."""

    capabilities = CAPABILITIES

    def __init__(self, draw: Callable[[], float] = lambda: 2000.0) -> None:
        self._draw = draw

    def session(self, options: RealtimeOptions) -> AbstractAsyncContextManager[RealtimeSession]:
        return _session(options, self._draw)


@asynccontextmanager
async def _session(
    options: RealtimeOptions, draw: Callable[[], float]
) -> AsyncIterator[RealtimeSession]:
    session = _EchoSession(options, draw)
    try:
        yield session
    finally:
        session.close()


class _EchoSession(RealtimeSession):
    __slots__ = (
        "_closed",
        "_converter",
        "_count",
        "_deaf_bytes",
        "_draw",
        "_events",
        "_format",
        "_item",
        "_left",
        "_muted",
        "_same",
        "_sink",
        "_tone",
    )

    def __init__(self, options: RealtimeOptions, draw: Callable[[], float]) -> None:
        self._deaf_bytes = 0
        self._closed = False
        self._muted = False
        self._item: str | None = None
        self._left = 0
        """Bytes until the response is over."""
        self._sink = options.sink
        self._format = options.input_format
        self._converter = Converter(options.input_format, options.output_format)
        self._same = self._converter.identity
        self._tone = _tone(options.output_format)
        self._draw = draw
        self._events = _Events()
        self._count = 0

    def close(self) -> None:
        self._closed = True
        self._events.close()

    # --- RealtimeSession --------------------------------------------------------------------

    def send_audio(self, audio: bytes) -> None:
        if self._deaf_bytes:
            dropped = min(self._deaf_bytes, len(audio))
            self._deaf_bytes -= dropped
            audio = audio[dropped:]
        if not audio or self._closed:
            return
        if self._muted:
            silence = self._format.silence
            audio = silence * (len(audio) // len(silence))
        item = self._item or self._begin()
        self._sink.write(item, audio if self._same else self._converter.process(audio))
        self._left -= len(audio)
        if self._left <= 0:
            self._end(LINE_CHECK)

    async def greet(self, instructions: str) -> None:
        await self._give_tone(LINE_CHECK)

    async def say(self, text: str) -> None:
        await self._give_tone(text)

    async def add_context(self, text: str) -> None:
        """An echo does not use context."""

    def mute(self, muted: bool) -> None:
        self._muted = muted

    async def interrupt(self, heard: Mapping[str, float]) -> None:
        if self._item is not None:
            self._end(LINE_CHECK, "cancelled")

    async def tool_result(
        self,
        call_id: str,
        result: Any,
        *,
        will_continue: bool = False,
        when: Literal["now", "idle", "silent"] = "now",
    ) -> None:
        """An echo calls no tools."""

    def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        return self._events

    # --- responses --------------------------------------------------------------------------

    def _begin(self) -> str:
        self._count += 1
        self._item = item = f"echo-{self._count}"
        self._left = self._format.size(self._draw())
        self._events.put(ResponseStarted(item))
        return item

    def _end(self, text: str, status: Literal["completed", "cancelled"] = "completed") -> None:
        item, self._item = self._item, None
        if item is None:
            return
        self._events.put(Transcript("assistant", item, text, final=True))
        self._events.put(ResponseDone(item, status, items=(item,)))

    async def _give_tone(self, text: str) -> None:
        self._deaf_bytes = self._format.size(_TONE_MS)
        self._end(LINE_CHECK)
        # Lets the host read that end before audio of the next item arrives.
        await anyio.lowlevel.checkpoint()
        if self._closed:
            return
        self._sink.write(self._begin(), self._tone)
        self._end(text)


@cache
def _tone(audio_format: AudioFormat) -> bytes:
    """A sine with soft edges."""
    samples = _TONE_MS * 8
    pcm = bytearray()
    for index in range(samples):
        edge = min(index, samples - 1 - index, 80) / 80
        level = _TONE_LEVEL * edge * math.sin(2 * math.pi * _TONE_HZ * index / 8000)
        pcm += round(level).to_bytes(2, "little", signed=True)
    converter = Converter(PCM16_8K, audio_format)
    return converter.process(bytes(pcm)) + converter.flush()


class _Events(AsyncIterator[RealtimeEvent]):
    """Events in order; ends once it is closed and all are read."""

    def __init__(self) -> None:
        self._waiting: list[RealtimeEvent] = []
        self._closed = False
        self._change: asyncio.Future[None] | None = None

    def put(self, event: RealtimeEvent) -> None:
        self._waiting.append(event)
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def __anext__(self) -> RealtimeEvent:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._change = asyncio.get_running_loop().create_future()
            await self._change
        return self._waiting.pop(0)


# --- entry point -----------------------------------------------------------------------------


def _factory(config: Any, context: ProviderContext) -> EchoProvider:
    random = context.seam.random
    return EchoProvider(lambda: _SHORTEST_MS + random() * (_LONGEST_MS - _SHORTEST_MS))


@hookimpl
def voicecall_realtime_providers() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.REALTIME,
            id="echo",
            label="Echo (line check)",
            factory=_factory,
            auto_select_order=1000,
            demo=True,
            capabilities=CAPABILITIES,
        )
    ]
