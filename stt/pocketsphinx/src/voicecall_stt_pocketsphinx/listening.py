"""Audio as events, in order. No clock, no task, no thread; it blocks while it decodes."""

from __future__ import annotations

import math
from collections import deque

from voicecall.audio import PCM16_16K, AudioFormat, Converter
from voicecall.transcription import (
    Final,
    Partial,
    SpeechEnded,
    SpeechStarted,
    TranscriptionEvent,
)

from .decoding import Decoder, DecoderPool, Verdict
from .endpointing import FRAME_BYTES, FRAME_MS, Endpointer

__all__ = ["Listener"]

_PREROLL_MS = 300
_SETTLE_MS = 300
_PARTIAL_EVERY_MS = 200
_LEAST_VOICE_MS = 200
_LONGEST_MS = 15_000


class Listener:
    """Listens to one caller. ``end_silence_ms`` of silence end an utterance.

    The verdict is made after 300 ms of silence, so that nothing is left to do when the utterance
    ends; if the caller goes on speaking, it is made again.
    """

    def __init__(self, audio_format: AudioFormat, pool: DecoderPool, end_silence_ms: int) -> None:
        self._format = audio_format
        self._converter = Converter(audio_format, PCM16_16K)
        self._pool = pool
        self._end_silence_ms = end_silence_ms
        self._settle_ms = min(_SETTLE_MS, end_silence_ms)
        self._endpointer = Endpointer()
        self._rest = b""
        self._clock_ms = 0.0
        self._utterance = 0
        self._preroll: deque[bytes] = deque(maxlen=_PREROLL_MS // FRAME_MS)
        self._frames: list[bytes] = []
        self._decoder: Decoder | None = None
        self._verdict: Verdict | None = None
        self._partial = ""
        self._events: list[TranscriptionEvent] = []

    def process(self, audio: bytes) -> list[TranscriptionEvent]:
        """The events in the next audio."""
        pcm = self._rest + self._converter.process(audio)
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        self._rest = pcm[whole:]
        for at in range(0, whole, FRAME_BYTES):
            self._frame(pcm[at : at + FRAME_BYTES])
        return self._taken()

    def skip(self, size: int) -> None:
        """Count ``size`` bytes of missing audio as time."""
        self._clock_ms += self._format.duration_ms(size)

    def commit(self) -> list[TranscriptionEvent]:
        """End the utterance, regardless of silence."""
        if self._endpointer.speaking:
            self._end()
        return self._taken()

    def close(self) -> None:
        """Give the decoder back."""
        if self._decoder is not None:
            self._decoder.stop()
            self._pool.give_back(self._decoder)
            self._decoder = None

    def _taken(self) -> list[TranscriptionEvent]:
        events, self._events = self._events, []
        return events

    @property
    def _now(self) -> int:
        return math.floor(self._clock_ms)

    def _frame(self, frame: bytes) -> None:
        self._clock_ms += FRAME_MS
        was_speaking = self._endpointer.speaking
        self._endpointer.feed(frame)
        if not self._endpointer.speaking:
            self._preroll.append(frame)
        elif not was_speaking:
            self._begin(frame)
        else:
            self._continue(frame)

    def _begin(self, frame: bytes) -> None:
        self._utterance += 1
        onset = self._now - self._endpointer.onset_ms
        self._events.append(SpeechStarted(utterance=self._utterance, at_ms=onset))
        self._frames = [*self._preroll, frame]
        self._preroll.clear()
        self._verdict = None
        self._partial = ""
        self._decoder = self._pool.lend()
        self._restart(self._decoder)

    def _continue(self, frame: bytes) -> None:
        assert self._decoder is not None
        self._frames.append(frame)
        silence = self._endpointer.silence_ms
        if silence >= self._end_silence_ms or len(self._frames) * FRAME_MS >= _LONGEST_MS:
            self._end()
        elif silence >= self._settle_ms:
            if self._verdict is None:
                self._verdict = self._judge(self._decoder)
        else:
            if self._verdict is not None:
                self._verdict = None
                self._restart(self._decoder)
            else:
                self._decoder.feed(frame)
            self._tell_partial(self._decoder)

    def _restart(self, decoder: Decoder) -> None:
        decoder.start()
        decoder.feed(b"".join(self._frames))

    def _tell_partial(self, decoder: Decoder) -> None:
        if len(self._frames) * FRAME_MS % _PARTIAL_EVERY_MS:
            return
        text = decoder.partial()
        if text and text != self._partial:
            self._partial = text
            self._events.append(Partial(utterance=self._utterance, at_ms=self._now, text=text))

    def _judge(self, decoder: Decoder) -> Verdict:
        if self._endpointer.voiced_ms < _LEAST_VOICE_MS:
            return Verdict("", None)
        return decoder.judge(b"".join(self._frames))

    def _end(self) -> None:
        assert self._decoder is not None
        verdict = self._verdict or self._judge(self._decoder)
        if self._endpointer.voiced_ms >= _LEAST_VOICE_MS:
            self._events.append(
                Final(utterance=self._utterance, at_ms=self._now, text=verdict.text)
            )
        self._events.append(SpeechEnded(utterance=self._utterance, at_ms=self._now))
        self._endpointer.end()
        self._frames = []
        self.close()
