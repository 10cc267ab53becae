"""Helpers of the suites: a sink that keeps what was written, loudness, silence and frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from voicecall.audio import PCM16_16K, AudioFormat, Converter

__all__ = ["RememberingSink", "frames", "loudness", "silence"]


class RememberingSink:
    """An audio sink that keeps what was written to each item."""

    def __init__(self) -> None:
        self.written: dict[str, bytearray] = {}

    def write(self, item_id: str, audio: bytes) -> None:
        self.written.setdefault(item_id, bytearray()).extend(audio)

    def audio(self, item_id: str) -> bytes:
        return bytes(self.written.get(item_id, b""))


def loudness(audio: bytes, audio_format: AudioFormat) -> float:
    """Root mean square of ``audio``, 0 to 32768."""
    if not audio:
        return 0.0
    samples = np.frombuffer(Converter(audio_format, PCM16_16K).process(audio), np.int16)
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


def silence(milliseconds: int, audio_format: AudioFormat) -> bytes:
    return audio_format.silence * (milliseconds * audio_format.sample_rate // 1000)


def frames(audio: bytes, audio_format: AudioFormat, milliseconds: int = 20) -> Iterator[bytes]:
    """``audio`` cut into frames; the last one may be shorter."""
    size = audio_format.size(milliseconds)
    for at in range(0, len(audio), size):
        yield audio[at : at + size]
