"""When the caller speaks: decisions about frames, smoothed by counters.

A frame is voiced if its energy exceeds a floor, which excludes line noise, and the WebRTC voice
activity detector says so in its strictest mode.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import pocketsphinx

__all__ = ["FRAME_BYTES", "FRAME_MS", "Endpointer"]

FRAME_MS = 20
FRAME_BYTES = 640
"""One frame of pcm16 at 16 kHz."""

_STRICTEST = 3
_FLOOR_RMS = 60.0  # of 32768: 55 dB below full scale
_WINDOW = 8
_ONSET = 5  # voiced frames in the window that make an onset: 100 ms if consecutive
_RESUME = 2  # consecutive voiced frames that end a silence; a single one is a click


class Endpointer:
    """Fed frame by frame; knows whether an utterance is under way and how long it is silent."""

    def __init__(self) -> None:
        self._detector = pocketsphinx.Vad(
            mode=_STRICTEST, sample_rate=16000, frame_length=FRAME_MS / 1000
        )
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._run = 0
        self.speaking = False
        self.silence_ms = 0
        """Silence since the last voiced frame, while ``speaking``."""
        self.voiced_ms = 0
        """Voiced time in this utterance."""

    def feed(self, frame: bytes) -> None:
        """Process ``FRAME_BYTES`` of audio."""
        voiced = self._voiced(frame)
        self._run = self._run + 1 if voiced else 0
        self._recent.append(voiced)
        if not self.speaking:
            if sum(self._recent) >= _ONSET:
                self.speaking = True
                self.silence_ms = 0
                self.voiced_ms = sum(self._recent) * FRAME_MS
            return
        if voiced:
            self.voiced_ms += FRAME_MS
        self.silence_ms = 0 if self._run >= _RESUME else self.silence_ms + FRAME_MS

    @property
    def onset_ms(self) -> int:
        """How long ago the voice began that has just started an utterance."""
        return (len(self._recent) - self._recent.index(True)) * FRAME_MS

    def end(self) -> None:
        """End the utterance."""
        self.speaking = False
        self._recent.clear()
        self._run = 0

    def _voiced(self, frame: bytes) -> bool:
        samples = np.frombuffer(frame, np.int16).astype(np.float32)
        if float(np.mean(samples * samples)) < _FLOOR_RMS * _FLOOR_RMS:
            return False
        return bool(self._detector.is_speech(frame))
