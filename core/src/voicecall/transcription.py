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

    The host uses none of these yet. It sends all audio, including silence, and never calls
    ``commit``: if the vendor does not decide when an utterance is over, the provider must end it
    after ``end_silence_ms``.
    """

    continuous_audio: bool = True
    end_of_turn: bool = True
    partials: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionOptions:
    """``audio_format`` is the format of what ``send_audio`` gets: that of the call's line,
    whichever it is; the provider converts it for its vendor (:class:`voicecall.audio.Converter`).
    ``end_silence_ms`` is the silence that ends an utterance. ``language`` and ``hints`` (likely
    words or phrases) are not used yet: the host leaves the defaults, and the language comes from
    the provider's own configuration."""

    audio_format: AudioFormat = MULAW_8K
    language: str = "en-US"
    end_silence_ms: int = 800
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """``utterance`` is the same for all events of one utterance, and another one for the next;
    ``at_ms`` is the position on the audio clock, milliseconds since the session's first sample."""

    utterance: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStarted(_Heard):
    """The caller began to make sounds of speech. Where it is missing, the host takes the first
    words of an utterance for its begin, which interrupts the bot later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial(_Heard):
    """What has been understood so far of the whole utterance (cumulative; may change)."""

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
    """The utterance is over. An empty ``text`` means that it was not understood."""

    text: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechEnded(_Heard):
    """The caller is silent again. Without a :class:`Final` before it, the sound was not speech."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLost:
    """The vendor is gone. If ``fatal``, it will not come back by itself: the host uses the last
    :class:`Partial` of an unfinished utterance as its text, and opens another session. Else it
    waits, without limit, and the provider itself ends an utterance that broke off."""

    reason: str
    fatal: bool


TranscriptionEvent = (
    SpeechStarted | Partial | TurnLikelyOver | TurnResumed | Final | SpeechEnded | SessionLost
)


class TranscriptionSession(ABC):
    @abstractmethod
    def send_audio(self, audio: bytes) -> None:
        """Caller audio in the agreed format. A plain function that never blocks and never raises.
        Audio that cannot be sent yet is kept up to a limited time; the oldest is dropped."""

    @abstractmethod
    def commit(self) -> None:
        """Take the utterance for finished. Not used yet."""

    @abstractmethod
    async def finish(self) -> None:
        """No more audio will come: deliver the remaining results, then end the iteration."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[TranscriptionEvent]: ...


class TranscriptionProvider(Provider):
    """A recogniser. ``capabilities`` is an attribute, not a property."""

    capabilities: TranscriptionCapabilities = TranscriptionCapabilities()

    @abstractmethod
    def session(
        self, options: TranscriptionOptions
    ) -> AbstractAsyncContextManager[TranscriptionSession]:
        """A session that is ready when entered. If cancelled, it must end within two seconds, or it
        is abandoned. Raises :exc:`voicecall.errors.ProviderError`; one that is not ``retryable``
        ends recognition in this call, else another session is opened, a few times."""
