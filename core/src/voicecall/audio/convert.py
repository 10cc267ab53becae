"""Stateful conversion between two audio formats; equal formats pass through."""

from __future__ import annotations

from collections.abc import Callable

from .formats import AudioFormat, Encoding
from .g711 import alaw_to_pcm16, mulaw_to_pcm16, pcm16_to_alaw, pcm16_to_mulaw
from .resampling import Resampler

__all__ = ["Converter"]

_TO_PCM: dict[Encoding, Callable[[bytes], bytes]] = {
    "mulaw": mulaw_to_pcm16,
    "alaw": alaw_to_pcm16,
}
_FROM_PCM: dict[Encoding, Callable[[bytes], bytes]] = {
    "mulaw": pcm16_to_mulaw,
    "alaw": pcm16_to_alaw,
}


class Converter:
    """Converts a stream of ``source`` audio to ``target`` audio.

    ``bytes`` in, ``bytes`` out; equal formats pass through. A piece of pcm16 input may end in the
    middle of a sample: the odd byte is kept for the next piece.
    """

    def __init__(self, source: AudioFormat, target: AudioFormat) -> None:
        self.source = source
        self.target = target
        self.identity = source == target
        self._odd = b""
        self._cuttable = source.sample_width > 1
        if self.identity:
            return
        self._decode = _TO_PCM.get(source.encoding)
        self._encode = _FROM_PCM.get(target.encoding)
        self._resampler = Resampler(source.sample_rate, target.sample_rate)

    def process(self, audio: bytes) -> bytes:
        if self._cuttable and (self._odd or len(audio) & 1):
            audio = self._odd + audio
            cut = len(audio) & ~1
            audio, self._odd = audio[:cut], audio[cut:]
        if self.identity:
            return audio
        if self._decode is not None:
            audio = self._decode(audio)
        audio = self._resampler.process(audio)
        return self._encode(audio) if self._encode is not None else audio

    def flush(self) -> bytes:
        """The tail of the resampler's filter. The converter then starts afresh."""
        self._odd = b""
        if self.identity:
            return b""
        tail = self._resampler.flush()
        return self._encode(tail) if self._encode is not None else tail

    def reset(self) -> None:
        """Forget the past, as after a barge-in."""
        self._odd = b""
        if not self.identity:
            self._resampler.reset()
