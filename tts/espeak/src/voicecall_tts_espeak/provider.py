"""eSpeak NG as a speech provider."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property

from anyio import to_thread

from voicecall.audio import MULAW_8K, PCM16_8K, PCM16_16K, PCM16_24K, AudioFormat
from voicecall.errors import ConfigError, ProviderUnavailable, RequestRejected
from voicecall.tts import PlainSpeechProvider, SpeechCapabilities

from .config import EspeakConfig
from .engine import Engine, EspeakError, Manner, UnknownVoice, shared_engine

__all__ = ["EspeakProvider", "pieces"]

_PROVIDER = "espeak"
_MAX_PIECE = 400
_SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+")


def pieces(text: str) -> list[str]:
    """``text`` cut at the ends of sentences, and between words if a sentence exceeds 400
    characters, so that audio starts early and no call blocks the one synthesiser for long."""
    cut = []
    for sentence in _SENTENCE_END.split(text):
        rest = sentence.strip()
        while len(rest) > _MAX_PIECE:
            space = rest.rfind(" ", 1, _MAX_PIECE)
            end = space if space > 0 else _MAX_PIECE
            cut.append(rest[:end])
            rest = rest[end:].lstrip()
        if rest:
            cut.append(rest)
    return cut


class EspeakProvider(PlainSpeechProvider):
    """Local speech synthesis; needs no key and no network. The output varies slightly from request
    to request, because the library keeps oscillator state between them."""

    capabilities = SpeechCapabilities(formats=(MULAW_8K, PCM16_8K, PCM16_16K, PCM16_24K))

    def __init__(self, config: EspeakConfig) -> None:
        self._manner = Manner(config.voice, config.rate, config.pitch, config.volume)

    @cached_property
    def _engine(self) -> Engine:
        try:
            return shared_engine()
        except EspeakError as error:
            raise ProviderUnavailable(str(error), provider=_PROVIDER, retryable=False) from error

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Raises what :meth:`check` raises."""
        await to_thread.run_sync(self.check)
        yield

    def check(self) -> None:
        """Load the library and check the voice. Raises :exc:`ConfigError` for an unknown voice,
        :exc:`ProviderUnavailable` if the library is missing."""
        try:
            self._engine.check(self._manner)
        except UnknownVoice as error:
            raise ConfigError(f"eSpeak NG has no voice {error}", path="espeak.voice") from None

    @property
    def native_format(self) -> AudioFormat:
        return AudioFormat("pcm16", self._engine.sample_rate)

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        """One piece of pcm16 for each sentence. ``voice`` overrides the configured one.

        Raises :exc:`RequestRejected` for an unknown voice or a text that cannot be spoken.
        """
        manner = replace(self._manner, voice=voice) if voice else self._manner
        for piece in pieces(text):
            try:
                # Abandoning the thread is safe: the engine finishes the sentence under its lock.
                audio = await to_thread.run_sync(
                    self._engine.speak, piece, manner, abandon_on_cancel=True
                )
            except UnknownVoice as error:
                raise RequestRejected(f"there is no voice {error}", provider=_PROVIDER) from None
            except EspeakError as error:
                raise RequestRejected(str(error), provider=_PROVIDER) from None
            if audio:
                yield audio
