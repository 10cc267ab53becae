"""Stereo recordings: what the phone said on the left, what it heard on the right."""

from __future__ import annotations

import io
import wave

from .playback import FRAME, FRAME_MS, SILENCE

__all__ = ["Recording"]


class Recording:
    """Frames of both sides from the first media stream on; time without a stream is silence."""

    def __init__(self, limit_s: float) -> None:
        self._limit = int(limit_s * 1000 / FRAME_MS)
        self._frames = 0
        self._said = bytearray()
        self._heard = bytearray()
        self._began: float | None = None

    def resume(self, now: float) -> None:
        """A stream begins at ``now`` (monotonic seconds): fill the time since the last one."""
        if self._began is None:
            self._began = now
        frames = round((now - self._began) * 1000 / FRAME_MS)
        for _ in range(min(frames, self._limit) - self._frames):
            self.add(None, None)

    def add(self, said: bytes | None, heard: bytes | None) -> None:
        """One frame of each side; None is silence."""
        if self._frames < self._limit:
            self._frames += 1
            self._said += said or SILENCE
            self._heard += heard or SILENCE

    @property
    def duration_ms(self) -> int:
        return self._frames * FRAME_MS

    @property
    def said(self) -> bytes:
        """The phone's side, mu-law 8 kHz."""
        return bytes(self._said)

    @property
    def heard(self) -> bytes:
        """What was played of the far side, mu-law 8 kHz."""
        return bytes(self._heard)

    def wav(self) -> bytes:
        """A WAV file: 8 kHz, 16 bit, stereo."""
        import numpy as np

        from voicecall.audio import mulaw_to_pcm16

        both = np.empty((self._frames * FRAME, 2), np.int16)
        both[:, 0] = np.frombuffer(mulaw_to_pcm16(self.said), np.int16)
        both[:, 1] = np.frombuffer(mulaw_to_pcm16(self.heard), np.int16)
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(2)
            writer.setsampwidth(2)
            writer.setframerate(8000)
            writer.writeframes(both.tobytes())
        return file.getvalue()
