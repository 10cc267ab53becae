"""PocketSphinx as a transcription provider."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio import CapacityLimiter, to_thread

from voicecall.audio import AudioFormat
from voicecall.transcription import (
    SessionLost,
    TranscriptionCapabilities,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)

from .config import PocketsphinxConfig
from .decoding import DecoderPool
from .grammar import load_grammar
from .listening import Listener

__all__ = ["PocketsphinxProvider"]

_BOUND_MS = 5_000
_BATCH_MS = 40


class PocketsphinxProvider(TranscriptionProvider):
    """Understands the sentences of its grammar; everything else gives an empty Final.

    The constructor raises :exc:`voicecall.errors.ConfigError` for a grammar that cannot be read,
    :meth:`lifespan` for one with words that are not in the dictionary. Hints and languages are
    ignored: only English is understood.
    """

    capabilities = TranscriptionCapabilities(continuous_audio=True, end_of_turn=True)

    def __init__(self, config: PocketsphinxConfig) -> None:
        self._config = config
        self._pool = DecoderPool(
            load_grammar(config), config.cmninit, config.reject_below, config.pool
        )
        # Decoding holds the interpreter lock, so more threads than cores gain nothing.
        self._threads = CapacityLimiter(max(2, os.cpu_count() or 2))

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        await to_thread.run_sync(self._pool.fill, limiter=self._threads, abandon_on_cancel=True)
        yield

    @asynccontextmanager
    async def session(self, options: TranscriptionOptions) -> AsyncIterator[TranscriptionSession]:
        silence_ms = self._config.end_silence_ms or options.end_silence_ms
        listener = Listener(options.audio_format, self._pool, silence_ms)
        session = _Session(listener, options.audio_format, self._threads)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.pump)
                yield session
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The host's own error must reach the host without a group.
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise
        finally:
            session.close()


class _Session(TranscriptionSession):
    """Audio waits in ``_inbox`` (None is a commit) until the pump passes it to a thread."""

    def __init__(
        self, listener: Listener, audio_format: AudioFormat, threads: CapacityLimiter
    ) -> None:
        self._listener = listener
        self._at_work = threading.Lock()
        """Held while the listener is used."""
        self._closed = False
        self._threads = threads
        self._inbox: deque[bytes | None] = deque()
        self._size = 0
        self._bound = audio_format.size(_BOUND_MS)
        self._batch = audio_format.size(_BATCH_MS)
        self._dropped = 0
        self._finishing = False
        self._wake = anyio.Event()
        self._done = anyio.Event()
        self._send, self._receive = anyio.create_memory_object_stream[TranscriptionEvent](math.inf)

    def send_audio(self, audio: bytes) -> None:
        if self._finishing or not audio:
            return
        self._inbox.append(audio)
        self._size += len(audio)
        while self._size > self._bound:
            # A commit is dropped together with the audio that it would end.
            oldest = self._inbox.popleft()
            if oldest is not None:
                self._size -= len(oldest)
                self._dropped += len(oldest)
        if self._size >= self._batch:
            self._wake.set()

    def commit(self) -> None:
        self._inbox.append(None)
        self._wake.set()

    async def finish(self) -> None:
        if not self._finishing:
            self._finishing = True
            self._inbox.append(None)
            self._wake.set()
        await self._done.wait()

    def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        return self._receive.__aiter__()

    def close(self) -> None:
        """Release everything: the session is not used any more."""
        self._closed = True
        self._let_go()
        self._send.close()
        self._receive.close()

    def _let_go(self) -> None:
        # If a thread still uses the listener, it closes it at its end.
        if self._at_work.acquire(blocking=False):
            try:
                self._listener.close()
            finally:
                self._at_work.release()

    async def pump(self) -> None:
        """Run until ``finish`` or a failure of the decoder, which also ends the iteration."""
        try:
            while not (self._finishing and not self._inbox):
                await self._wake.wait()
                self._wake = anyio.Event()
                work, dropped = list(self._inbox), self._dropped
                self._inbox.clear()
                self._size = self._dropped = 0
                events = await to_thread.run_sync(
                    self._listen, work, dropped, limiter=self._threads, abandon_on_cancel=True
                )
                for event in events:
                    self._send.send_nowait(event)
        except (RuntimeError, ValueError, MemoryError) as error:
            lost = SessionLost(reason=f"the decoder failed: {error}", fatal=True)
            self._send.send_nowait(lost)
        finally:
            self._finishing = True
            self._send.close()
            self._done.set()

    def _listen(self, work: list[bytes | None], dropped: int) -> list[TranscriptionEvent]:
        try:
            with self._at_work:
                if dropped:
                    self._listener.skip(dropped)
                listener = self._listener
                return [
                    event
                    for item in work
                    for event in (listener.commit() if item is None else listener.process(item))
                ]
        finally:
            if self._closed:
                self._let_go()
