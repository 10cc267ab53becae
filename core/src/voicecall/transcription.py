"""Contract of speech recognition: audio in, utterances out.

The host opens one session per call, and another one after a fatal loss::

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
    """What a recogniser can do. ``partials``: the vendor sends :class:`Partial`.
    ``continuous_audio``: silence must be sent, too. ``end_of_turn``: the vendor decides when an
    utterance is over.

    The host uses none of these yet. It sends all audio, including silence, and never calls
    ``commit``: if the vendor does not decide when an utterance is over, the provider must end it
    after ``end_silence_ms``.
    """

    continuous_audio: bool = True
    end_of_turn: bool = True
    partials: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptionOptions:
    """How to open a session. ``audio_format`` is the format of the call's line, in which
    ``send_audio`` gets its audio; it can be any format, and the provider converts it for its vendor
    (:class:`voicecall.audio.Converter`). ``end_silence_ms`` is the silence that ends an utterance.
    ``language`` and ``hints`` (likely words or phrases) are not used yet: the host leaves the
    defaults, and the language comes from the provider's own configuration."""

    audio_format: AudioFormat = MULAW_8K
    language: str = "en-US"
    end_silence_ms: int = 800
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """``utterance`` is the same number for all events of one utterance, and a different one for the
    next; ``at_ms`` is a position in the audio, in milliseconds since the session's first sample."""

    utterance: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechStarted(_Heard):
    """The caller began to speak. If this event is missing, the first text of an utterance counts as
    its beginning, and the bot is interrupted later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial(_Heard):
    """The text of the whole utterance so far (cumulative; may change)."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLikelyOver(_Heard):
    """The vendor expects that the turn is over; a reply can be prepared. Not used yet."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResumed(_Heard):
    """A :class:`TurnLikelyOver` was wrong. Not used yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final(_Heard):
    """The utterance is over. An empty ``text`` means that it was not understood. ``confidence`` is
    0 to 1."""

    text: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechEnded(_Heard):
    """The caller is silent again. Without a :class:`Final` before it, the sound was not speech."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLost:
    """The connection to the vendor is lost. If ``fatal``, this session will not recover: the host
    takes the last :class:`Partial` of an unfinished utterance as its text, and opens another
    session. Otherwise the host waits without limit for the provider to reconnect, and the provider
    ends an utterance that was broken off."""

    reason: str
    fatal: bool


TranscriptionEvent = (
    SpeechStarted | Partial | TurnLikelyOver | TurnResumed | Final | SpeechEnded | SessionLost
)


class TranscriptionSession(ABC):
    @abstractmethod
    def send_audio(self, audio: bytes) -> None:
        """Accept caller audio in ``audio_format``; called for every frame of a call. A plain
        function that never blocks and never raises. Audio that cannot be sent yet is kept, up to a
        limit; beyond that, the oldest is dropped."""

    @abstractmethod
    def commit(self) -> None:
        """Treat the current utterance as finished. Not used yet."""

    @abstractmethod
    async def finish(self) -> None:
        """No more audio will come: deliver the remaining results, then end the iteration."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        """The events of the session, until :meth:`finish` or a fatal :class:`SessionLost`."""
        ...


class TranscriptionProvider(Provider):
    """A recogniser. ``capabilities`` is an attribute, not a property."""

    capabilities: TranscriptionCapabilities = TranscriptionCapabilities()

    @abstractmethod
    def session(
        self, options: TranscriptionOptions
    ) -> AbstractAsyncContextManager[TranscriptionSession]:
        """A session for one call, ready when entered. If cancelled, it must end within two seconds,
        or the host abandons it. Raises :exc:`voicecall.errors.ProviderError`: if that is
        ``retryable``, the host tries again a few times; otherwise recognition ends for this
        call."""
