"""A scripted full-duplex voice model for tests. Uses no network, and runs on virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio

from voicecall.errors import ProviderError
from voicecall.realtime import (
    RealtimeCapabilities,
    RealtimeEvent,
    RealtimeOptions,
    RealtimeProvider,
    RealtimeSession,
    ResponseDone,
    ResponseStarted,
    Transcript,
)

__all__ = ["ScriptedRealtime", "ScriptedRealtimeSession"]


class ScriptedRealtimeSession(RealtimeSession):
    """A session that keeps what the host asks for.

    ``asked`` has pairs ("greet" | "say" | "context", text); ``results`` has the results of tools as
    (call id, result, ``will_continue``); ``interrupts`` has the ``heard`` of each interruption.
    """

    def __init__(self, provider: ScriptedRealtime, options: RealtimeOptions) -> None:
        self.options = options
        self.audio = bytearray()
        self.muted = False
        self.asked: list[tuple[str, str]] = []
        self.results: list[tuple[str, Any, bool]] = []
        self.interrupts: list[dict[str, float]] = []
        self._provider = provider
        self._in, self._out = anyio.create_memory_object_stream[RealtimeEvent](1000)
        self._count = 0
        self._ended = False

    # --- the test's side ---

    def tell(self, *events: RealtimeEvent) -> None:
        for event in events:
            self._in.send_nowait(event)

    def write(self, item: str, milliseconds: float, value: int = 1) -> None:
        """Write audio of an item: the byte ``value``, repeated."""
        output = self.options.output_format
        self.options.sink.write(item, bytes([value]) * output.size(milliseconds))

    def speak(self, text: str, milliseconds: float, value: int = 1) -> str:
        """Give a whole response at once; returns its item."""
        self._count += 1
        item = f"item-{self._count}"
        self.tell(ResponseStarted(f"response-{self._count}"))
        self.write(item, milliseconds, value)
        self.tell(
            Transcript("assistant", item, text, final=True),
            ResponseDone(f"response-{self._count}", "completed", items=(item,)),
        )
        return item

    def hears(self, text: str) -> None:
        """Report what the caller said."""
        self.tell(Transcript("user", "caller", text, final=True))

    def end(self) -> None:
        """End the session, as the vendor does."""
        self._ended = True
        self._in.close()

    def close(self) -> None:
        self.end()
        self._out.close()

    # --- RealtimeSession ---

    def send_audio(self, audio: bytes) -> None:
        self.audio += self.options.input_format.silence * len(audio) if self.muted else audio

    async def greet(self, instructions: str) -> None:
        self._ask("greet", instructions, "Hello there, how are you?")

    async def say(self, text: str) -> None:
        self._ask("say", text, text)

    def _ask(self, kind: str, text: str, words: str) -> None:
        self.asked.append((kind, text))
        if self._ended:
            raise ProviderError("the session has ended", provider="scripted")
        if self._provider.refusals:
            raise self._provider.refusals.popleft()
        if self._provider.idle:
            return
        if self._provider.silent:
            self._count += 1
            self.tell(ResponseDone(f"response-{self._count}", "failed", "no voice"))
        elif self._provider.stalls:
            self._count += 1
            self.write(f"item-{self._count}", self._provider.answer_ms)
        else:
            self.speak(words, self._provider.answer_ms)

    async def add_context(self, text: str) -> None:
        self.asked.append(("context", text))

    def mute(self, muted: bool) -> None:
        self.muted = muted

    async def interrupt(self, heard: Mapping[str, float]) -> None:
        self.interrupts.append(dict(heard))

    async def tool_result(
        self,
        call_id: str,
        result: Any,
        *,
        will_continue: bool = False,
        when: Literal["now", "idle", "silent"] = "now",
    ) -> None:
        self.results.append((call_id, result, will_continue))

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        async for event in self._out:
            yield event


class ScriptedRealtime(RealtimeProvider):
    """A scripted voice model. The next sessions raise ``open_errors``, one each; opening takes
    ``open_delay_s``. The next requests to speak raise ``refusals``, one each. Otherwise a response
    lasts ``answer_ms``; with ``silent`` it fails, with ``stalls`` it never ends, and with ``idle``
    it never begins."""

    def __init__(self, capabilities: RealtimeCapabilities | None = None) -> None:
        self.capabilities = capabilities or RealtimeCapabilities()
        self.sessions: list[ScriptedRealtimeSession] = []
        self.open_errors: deque[ProviderError] = deque()
        self.open_delay_s = 0.0
        self.refusals: deque[ProviderError] = deque()
        self.silent = False
        self.stalls = False
        self.idle = False
        self.answer_ms = 1000.0

    @property
    def current(self) -> ScriptedRealtimeSession:
        """The newest session."""
        return self.sessions[-1]

    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        if self.open_delay_s:
            await anyio.sleep(self.open_delay_s)
        if self.open_errors:
            raise self.open_errors.popleft()
        session = ScriptedRealtimeSession(self, options)
        self.sessions.append(session)
        try:
            yield session
        finally:
            session.close()
