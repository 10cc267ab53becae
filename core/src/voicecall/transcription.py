"""Contract of speech recognition: audio in, utterances out.

::

    async with provider.session(options) as session:   # entered when the vendor is ready
        session.send_audio(pcm)                        # plain call, never blocks
        async for event in session: ...                # until finish() or a fatal loss
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from .audio.formats import MULAW_8K, AudioFormat
from .providers import Provider

__all__ = [
    "Final",
    "Partial",
    "SessionLost",
    "SpeechEnded",
    "SpeechStarted",
    "TranscriptionCapabilities",
    "TranscriptionEvent",
    "TranscriptionOptions",
    "TranscriptionProvider",
    "TranscriptionSession",
    "TurnLikelyOver",
    "TurnResumed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionCapabilities:
    """``partials``: the vendor sends :class:`Partial`. ``continuous_audio``: silence must be sent
    too. ``end_of_turn``: the vendor decides when an utterance is over.

    The host uses none of them yet. It sends all audio, silence included, and never calls
    ``commit``: a provider whose vendor does not decide has to end utterances by itself, after
    ``end_silence_ms``.
    """

    continuous_audio: bool = True
    end_of_turn: bool = True
    partials: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionOptions:
    """``audio_format`` is what ``send_audio`` will be given, ``end_silence_ms`` the silence that
    ends an utterance. ``language`` and ``hints`` (words or phrases that are likely) are not used
    yet: the host leaves them as they are, and a provider's own configuration has its language."""

    audio_format: AudioFormat = MULAW_8K
    language: str = "en-US"
    end_silence_ms: int = 800
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """``utterance`` is the same for all events of one utterance; ``at_ms`` is the position on
    the audio clock, milliseconds since the session's first sample."""

    utterance: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStarted(_Heard):
    """The caller began to make sounds of speech."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial(_Heard):
    """What is understood so far of the whole utterance (cumulative, may change)."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLikelyOver(_Heard):
    """The vendor guesses that the turn is over; a reply may be prepared. Not used yet."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResumed(_Heard):
    """The guess was wrong. Not used yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final(_Heard):
    """The utterance is over. Empty ``text``: something was said that was not understood."""

    text: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechEnded(_Heard):
    """The caller is silent again. Without a Final before it, the sound was no speech."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLost:
    """The vendor is gone. ``fatal``: it will not come back by itself. The host then takes the last
    :class:`Partial` of an utterance that is not over for its text, and opens another session."""

    reason: str
    fatal: bool


TranscriptionEvent = (
    SpeechStarted | Partial | TurnLikelyOver | TurnResumed | Final | SpeechEnded | SessionLost
)


class TranscriptionSession(ABC):
    @abstractmethod
    def send_audio(self, audio: bytes) -> None:
        """Caller audio in the agreed format. Never blocks, never raises; what cannot be sent
        yet waits, bounded by time (the oldest is dropped)."""

    @abstractmethod
    def commit(self) -> None:
        """The host says that the utterance is over. Not used yet."""

    @abstractmethod
    async def finish(self) -> None:
        """No more audio will come; remaining results are delivered, then the iteration ends."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[TranscriptionEvent]: ...


class TranscriptionProvider(Provider):
    """A recogniser. ``capabilities`` is an attribute, not a property."""

    capabilities: TranscriptionCapabilities = TranscriptionCapabilities()

    @abstractmethod
    def session(
        self, options: TranscriptionOptions
    ) -> AbstractAsyncContextManager[TranscriptionSession]:
        """A session, ready when entered; cancelled, it ends within two seconds or is left behind.
        Raises :exc:`voicecall.errors.ProviderError`."""
