"""Data of a pacer: audio that waits, audio on its way, and sizes that calls share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .audio.formats import AudioFormat

__all__ = ["Pace", "Piece", "Stretch", "pace_of"]


@dataclass(slots=True)
class Piece:
    """Audio of one item that waits for its time."""

    item: str
    audio: bytes


@dataclass(slots=True)
class Stretch:
    """Audio of one item on its way to the caller, without a gap; it begins at ``starts_at``."""

    item: str
    audio: bytearray
    starts_at: float
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """Sizes in bytes, and the lead in seconds, of all calls with the same settings."""

    bytes_per_second: int
    lead: float
    chunk: int
    mark_every: int
    mark_assured: int
    limit: int


@cache
def pace_of(
    audio_format: AudioFormat,
    lead_ms: int,
    chunk_ms: int,
    mark_ms: int,
    assured_ms: int,
    limit_ms: int,
) -> Pace:
    return Pace(
        audio_format.bytes_per_second,
        lead_ms / 1000,
        audio_format.size(chunk_ms),
        audio_format.size(mark_ms),
        audio_format.size(assured_ms),
        audio_format.size(limit_ms),
    )
