"""A voice and a recogniser for tests that encode text in tones (:mod:`voicecall_testing.fsk`).

The voice sends exact text through the real audio path, and the recogniser reads exactly what
arrived. Both have the id ``fsk``; the module is a plugin::

    from voicecall_testing import speech

    Registry(extra=[("voicecall.tts", "fsk", speech), ("voicecall.transcription", "fsk", speech)])
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl
from voicecall.audio import MULAW_8K, PCM16_8K, AudioFormat, Converter
from voicecall.errors import RequestRejected
from voicecall.transcription import (
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)
from voicecall.tts import PlainSpeechProvider

from .fsk import FskDecoder, encode

__all__ = ["FskSpeech", "FskTranscription", "FskTranscriptionSession"]

_FRAME_MS = 20
_FRAME = PCM16_8K.size(_FRAME_MS)
_LOUD = 800.0
"""A frame with at least this root mean square is not silence."""
_ONSET_FRAMES = 2
_NOISE_FRAMES = 6
"""Sound without a packet counts as speech only if it is longer than this."""
_PIECE = MULAW_8K.size(200)


class FskSpeech(PlainSpeechProvider):
    """A voice that encodes each text as one packet."""

    @property
    def native_format(self) -> AudioFormat:
        return MULAW_8K

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        try:
            audio = encode(text.strip())
        except ValueError as error:
            raise RequestRejected(str(error), provider="fsk") from None
        for start in range(0, len(audio), _PIECE):
            await anyio.lowlevel.checkpoint()
            yield audio[start : start + _PIECE]


class FskTranscription(TranscriptionProvider):
    """A recogniser that decodes packets. An utterance is the sound between two silences; its
    packets are joined with spaces. If one of them is broken, or there is none, the ``Final`` is
    empty."""

    @asynccontextmanager
    async def session(
        self, options: TranscriptionOptions
    ) -> AsyncIterator[FskTranscriptionSession]:
        yield FskTranscriptionSession(options)


class FskTranscriptionSession(TranscriptionSession):
    """Decodes audio as it is sent, without a task."""

    def __init__(self, options: TranscriptionOptions) -> None:
        self._converter = Converter(options.audio_format, PCM16_8K)
        self._end_frames = max(1, options.end_silence_ms // _FRAME_MS)
        self._decoder = FskDecoder()
        self._rest = b""
        self._frames = 0
        self._loud = 0
        self._quiet = 0
        self._speaking = False
        self._number = 0
        self._texts: list[str] = []
        self._broken = False
        self._events: deque[TranscriptionEvent] = deque()
        self._news = anyio.Event()
        self._finished = False

    # --- audio ------------------------------------------------------------------------------

    def send_audio(self, audio: bytes) -> None:
        if self._finished:
            return
        self._rest += self._converter.process(audio)
        while len(self._rest) >= _FRAME:
            frame, self._rest = self._rest[:_FRAME], self._rest[_FRAME:]
            self._frame(frame)

    def _frame(self, frame: bytes) -> None:
        self._frames += 1
        samples = np.frombuffer(frame, "<i2").astype(np.float32)
        if float(samples @ samples) >= _LOUD**2 * len(samples):
            self._loud += 1
            self._quiet = 0
        else:
            self._quiet += 1
            if not self._speaking:
                self._loud = 0
        if not self._speaking and self._loud >= _ONSET_FRAMES:
            self._speaking = True
            self._number += 1
            self._tell(SpeechStarted(utterance=self._number, at_ms=self._at_ms))
        self._take(self._decoder.feed(frame))
        if self._speaking and self._quiet >= self._end_frames:
            self._end_utterance()

    def _take(self, packets: Sequence[str | None]) -> None:
        for text in packets:
            if text is None:
                self._broken = True
            else:
                self._texts.append(text)
                if not self._broken and self._speaking:
                    heard = " ".join(self._texts)
                    self._tell(Partial(utterance=self._number, at_ms=self._at_ms, text=heard))

    def _end_utterance(self) -> None:
        self._take(self._decoder.finish())
        text = "" if self._broken else " ".join(self._texts)
        if text or self._broken or self._loud > _NOISE_FRAMES:
            self._tell(Final(utterance=self._number, at_ms=self._at_ms, text=text))
        self._tell(SpeechEnded(utterance=self._number, at_ms=self._at_ms))
        self._speaking = self._broken = False
        self._texts = []
        self._loud = self._quiet = 0

    @property
    def _at_ms(self) -> int:
        return self._frames * _FRAME_MS

    def commit(self) -> None:
        if self._speaking and not self._finished:
            self._end_utterance()

    async def finish(self) -> None:
        self.commit()
        self._finished = True
        self._news.set()

    # --- events -----------------------------------------------------------------------------

    def _tell(self, event: TranscriptionEvent) -> None:
        self._events.append(event)
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._finished:
                return
            self._news = anyio.Event()
            await self._news.wait()


# --- the plugin ------------------------------------------------------------------------------


def _speech(config: Any, context: ProviderContext) -> FskSpeech:
    return FskSpeech()


def _transcription(config: Any, context: ProviderContext) -> FskTranscription:
    return FskTranscription()


@hookimpl
def voicecall_tts_providers() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.TTS,
            id="fsk",
            label="Text in tones, for tests",
            factory=_speech,
            demo=True,
        )
    ]


@hookimpl
def voicecall_transcription_providers() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.TRANSCRIPTION,
            id="fsk",
            label="Text in tones, for tests",
            factory=_transcription,
            demo=True,
        )
    ]
