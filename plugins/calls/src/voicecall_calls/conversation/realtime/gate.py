"""Local detection of the caller's speech by loudness, during a protected greeting and for models
that leave it to the host."""

from __future__ import annotations

from functools import cache

import numpy as np

from voicecall.audio import AudioFormat, alaw_to_pcm16, mulaw_to_pcm16

__all__ = ["SpeechGate"]

_LEVEL = 0.035
"""Level that counts as speech: root mean square, relative to full scale."""
_BEGIN_MS = 40
_REARM_MS = 240


class SpeechGate:
    """Speech begins after 40 ms of continuous sound, and ends after 240 ms of quiet."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self.lasted_ms = 0.0
        """How long the current speech has lasted, including short gaps; 0 if there is none."""
        self._format = audio_format
        self._squares = _squares(audio_format)
        self._loud_ms = 0.0
        self._quiet_ms = 0.0
        self._speaking = False

    @property
    def loud(self) -> bool:
        """The sound at this moment has lasted long enough to be speech."""
        return self._loud_ms >= _BEGIN_MS

    def hear(self, audio: bytes) -> bool:
        """Take the next piece of caller audio. Returns True if speech begins in it."""
        duration = self._format.duration_ms(len(audio))
        if self._level(audio) >= _LEVEL:
            self._loud_ms += duration
            self._quiet_ms = 0.0
        else:
            self._loud_ms = 0.0
            self._quiet_ms += duration
        if self._speaking:
            self.lasted_ms += duration
            if self._quiet_ms >= _REARM_MS:
                self._speaking = False
                self.lasted_ms = 0.0
            return False
        if not self.loud:
            return False
        self._speaking = True
        self.lasted_ms = self._loud_ms
        return True

    def _level(self, audio: bytes) -> float:
        if self._squares is not None:
            squares = self._squares[np.frombuffer(audio, np.uint8)]
        else:
            samples = np.frombuffer(audio[: len(audio) & ~1], np.int16)
            squares = np.square(samples.astype(np.float32) / 32768)
        return float(np.sqrt(squares.mean())) if len(squares) else 0.0


@cache
def _squares(audio_format: AudioFormat) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
    """The squared level of each G.711 byte; None for linear audio."""
    decode = {"mulaw": mulaw_to_pcm16, "alaw": alaw_to_pcm16}.get(audio_format.encoding)
    if decode is None:
        return None
    levels = np.frombuffer(decode(bytes(range(256))), np.int16).astype(np.float32) / 32768
    return np.square(levels)
