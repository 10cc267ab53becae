"""Contract of voice activity and end-of-turn detection, for recognisers without their own."""

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
    """Speech began at ``at_ms`` of the audio clock."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class VoiceStopped:
    at_ms: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The speaker is done, with this probability (0 to 1)."""

    at_ms: int
    probability: float


TurnEvent = VoiceStarted | VoiceStopped | TurnEnded


class TurnDetector(ABC):
    """One a call."""

    @abstractmethod
    def process(self, audio: bytes) -> tuple[TurnEvent, ...]:
        """Feed the next audio in the agreed format; what it shows."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the past."""


class TurnDetectorProvider(Provider):
    @abstractmethod
    def detector(self, audio_format: AudioFormat) -> TurnDetector: ...
