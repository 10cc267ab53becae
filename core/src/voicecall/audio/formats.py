"""Audio formats. Nothing here needs numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["MULAW_8K", "PCM16_8K", "PCM16_16K", "PCM16_24K", "AudioFormat", "Encoding"]

Encoding = Literal["mulaw", "alaw", "pcm16"]


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Mono audio: ``mulaw`` or ``alaw`` (ITU-T G.711, one byte per sample), or ``pcm16`` (signed
    16 bit, little endian), at ``sample_rate`` hertz. Raises ``ValueError`` for anything else."""

    encoding: Encoding
    sample_rate: int

    def __post_init__(self) -> None:
        # Audio in an unknown format would be treated as pcm16, and be noise.
        if self.encoding not in get_args(Encoding):
            raise ValueError(f"encoding must be mulaw, alaw or pcm16, not {self.encoding!r}")
        if self.sample_rate <= 0:
            raise ValueError(f"sample_rate must be positive, not {self.sample_rate}")

    @property
    def sample_width(self) -> int:
        """Bytes per sample."""
        return 2 if self.encoding == "pcm16" else 1

    @property
    def bytes_per_second(self) -> int:
        return self.sample_rate * self.sample_width

    @property
    def silence(self) -> bytes:
        """One sample of silence."""
        return {"mulaw": b"\xff", "alaw": b"\xd5", "pcm16": b"\x00\x00"}[self.encoding]

    def duration_ms(self, size: int) -> float:
        """The duration of ``size`` bytes in milliseconds."""
        return size * 1000 / self.bytes_per_second

    def size(self, milliseconds: float) -> int:
        """The number of bytes in ``milliseconds``, rounded down to whole samples."""
        return int(milliseconds * self.sample_rate / 1000) * self.sample_width

    def __str__(self) -> str:
        return f"{self.encoding}/{self.sample_rate}"


MULAW_8K = AudioFormat("mulaw", 8000)
PCM16_8K = AudioFormat("pcm16", 8000)
PCM16_16K = AudioFormat("pcm16", 16000)
PCM16_24K = AudioFormat("pcm16", 24000)
