"""The WebRTC voice activity detector as a turn detector."""

from __future__ import annotations

import numpy as np
import webrtcvad

from voicecall.audio import PCM16_8K, AudioFormat, Converter
from voicecall.turn import (
    TurnDetector,
    TurnDetectorProvider,
    TurnEvent,
    VoiceStarted,
    VoiceStopped,
)

from .floor import NoiseFloor
from .voicing import Voicing

__all__ = ["WebRtcDetector", "WebRtcProvider"]

_STRICTEST = 3
_FRAME_MS = 20
_FRAME_BYTES = PCM16_8K.size(_FRAME_MS)
_ONSET = 12
"""Voiced frames that begin a voice: a noise of just under 200 ms can affect eleven."""
_WINDOW = 24
"""Frames within which they must lie."""
_HANGOVER = 12
"""Unvoiced frames that end it: the closure of a plosive takes up to 150 ms."""
_FLOOR_FRAMES = 50
"""A second, after which a steady noise no longer counts as a voice."""


class WebRtcDetector(TurnDetector):
    """Classifies frames of 20 ms by the library's strictest mode and by a noise floor.

    The library holds its decision for some 100 ms after a sound, which would prolong short noises;
    the floor compensates for that.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self._converter = Converter(audio_format, PCM16_8K)
        self.reset()

    def reset(self) -> None:
        self._converter.reset()
        self._vad = webrtcvad.Vad(_STRICTEST)
        self._floor = NoiseFloor(_FLOOR_FRAMES)
        self._voicing = Voicing(onset=_ONSET, window=_WINDOW, hangover=_HANGOVER)
        self._rest = b""

    def process(self, audio: bytes) -> tuple[TurnEvent, ...]:
        pcm = self._rest + self._converter.process(audio)
        whole = len(pcm) - len(pcm) % _FRAME_BYTES
        self._rest = pcm[whole:]
        events: tuple[TurnEvent, ...] = ()
        voicing = self._voicing
        for start in range(0, whole, _FRAME_BYTES):
            if voicing.frame(self._voiced(pcm[start : start + _FRAME_BYTES])):
                if voicing.active:
                    events += (VoiceStarted(voicing.began * _FRAME_MS),)
                else:
                    events += (VoiceStopped(voicing.ended * _FRAME_MS),)
        return events

    def _voiced(self, frame: bytes) -> bool:
        samples = np.frombuffer(frame, np.int16).astype(np.float32)
        stands_out = self._floor.above(float(np.dot(samples, samples) / len(samples)) ** 0.5)
        # The library adapts to what it hears, so it must get every frame.
        speech = bool(self._vad.is_speech(frame, PCM16_8K.sample_rate))
        return speech and stands_out


class WebRtcProvider(TurnDetectorProvider):
    """Needs no configuration; works at 8 kHz whatever the call's format."""

    def detector(self, audio_format: AudioFormat) -> WebRtcDetector:
        return WebRtcDetector(audio_format)
