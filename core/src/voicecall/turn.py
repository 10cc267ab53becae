"""Contract of voice activity and end-of-turn detection: for barge-in before any word is
understood, and later for recognisers that do not detect the end of a turn.

Times are in milliseconds of the audio fed to a detector since it was created or last reset.
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
    """A voice began at ``at_ms``, which is in the past: this is reported once it is certain. A
    noise shorter than 200 ms is not a voice and is never reported."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class VoiceStopped:
    """The voice reported last ended at ``at_ms``, also in the past, because a silence within a word
    is not an end."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The speaker has finished, with this probability (0 to 1). Not used yet."""

    at_ms: int
    probability: float


TurnEvent = VoiceStarted | VoiceStopped | TurnEnded


class TurnDetector(ABC):
    """One per call. :class:`VoiceStarted` and :class:`VoiceStopped` alternate."""

    @abstractmethod
    def process(self, audio: bytes) -> tuple[TurnEvent, ...]:
        """Process the next audio, a piece of any size in the agreed format; returns the events
        found in it.

        Called for every frame of a call, in the event loop: it may take tens of microseconds, and
        must not wait.
        """

    @abstractmethod
    def reset(self) -> None:
        """Forget the past; time starts at 0 again. Not used yet."""


class TurnDetectorProvider(Provider):
    """Makes turn detectors."""

    @abstractmethod
    def detector(self, audio_format: AudioFormat) -> TurnDetector:
        """A detector for one call, whose caller audio is in ``audio_format``."""
