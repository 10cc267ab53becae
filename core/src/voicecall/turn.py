"""Contract of voice activity and end-of-turn detection: for barge-in before any word is
understood, and later for recognisers without an end of turn of their own.

Times are milliseconds of the audio that a detector was fed since it was made or last reset.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from .audio.formats import AudioFormat
from .providers import Provider

__all__ = [
    "TurnDetector",
    "TurnDetectorProvider",
    "TurnEnded",
    "TurnEvent",
    "VoiceStarted",
    "VoiceStopped",
]


@dataclass(frozen=True, slots=True)
class VoiceStarted:
    """A voice began at ``at_ms``, which lies in the past: it is told once it is sure. A noise
    shorter than 200 ms is no voice and is never told."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class VoiceStopped:
    """The voice that was told last ended at ``at_ms``, in the past as well: the silences within
    words are no end."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The speaker is done, with this probability (0 to 1). Not used yet."""

    at_ms: int
    probability: float


TurnEvent = VoiceStarted | VoiceStopped | TurnEnded


class TurnDetector(ABC):
    """One a call. :class:`VoiceStarted` and :class:`VoiceStopped` take turns."""

    @abstractmethod
    def process(self, audio: bytes) -> tuple[TurnEvent, ...]:
        """Feed the next audio in the agreed format, in pieces of any size; what it shows.

        Called for every frame of a call, on the event loop: tens of microseconds, no waiting.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget the past; the clock starts at 0 again."""


class TurnDetectorProvider(Provider):
    @abstractmethod
    def detector(self, audio_format: AudioFormat) -> TurnDetector:
        """A detector for one call whose caller is heard in ``audio_format``."""
