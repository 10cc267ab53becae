"""Contract of speech synthesis: text in while it is being written, audio out as it is spoken.

::

    async with provider.session(voice, audio_format) as session:
        utterance = session.utterance("reply-1", sink)
        utterance.send("Good morning. ")
        utterance.flush()             # no more text
        await utterance.done()        # all audio was written to the sink

For a vendor with a plain "text to audio" request, implement :class:`PlainSpeechProvider`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.lowlevel

from .audio.formats import MULAW_8K, AudioFormat
from .errors import ProviderError, ProviderUnavailable
from .media import AudioSink
from .providers import Provider

if TYPE_CHECKING:
    from .audio.convert import Converter

__all__ = [
    "PlainSpeechProvider",
    "SpeechCapabilities",
    "SpeechProvider",
    "SpeechSession",
    "SpokenSpan",
    "Utterance",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechCapabilities:
    """What a voice can do. ``formats``: audio formats that the vendor delivers, best first.
    ``timings``: the provider knows which span of text a stretch of audio belongs to. The host uses
    neither yet: it can ask for any format, and the provider converts."""

    formats: tuple[AudioFormat, ...] = (MULAW_8K,)
    timings: bool = False


@dataclass(frozen=True, slots=True)
class SpokenSpan:
    """The audio of the characters [start, end) of an utterance's text ends at ``until_ms``. Not
    used yet."""

    start: int
    end: int
    until_ms: float


class Utterance(ABC):
    """One thing to say."""

    @abstractmethod
    def send(self, text: str) -> None:
        """Add text, in whole sentences if possible. Must not block."""

    @abstractmethod
    def flush(self) -> None:
        """There is no more text."""

    @abstractmethod
    def cancel(self, heard_ms: float) -> str | None:
        """Stop; called when the utterance is interrupted. Returns the text that was spoken in the
        first ``heard_ms`` milliseconds of its audio, or None if the provider does not know; the
        host then estimates it."""

    @abstractmethod
    async def done(self) -> None:
        """Wait until all audio was written to the sink. The host may cancel this and call it again.
        Raises :exc:`voicecall.errors.ProviderError`."""


class SpeechSession(ABC):
    """A session of a voice, used for all utterances of one call."""

    @abstractmethod
    def utterance(self, item_id: str, sink: AudioSink) -> Utterance:
        """Begin an utterance; its audio goes to ``sink`` under ``item_id``."""


class SpeechProvider(Provider):
    """A voice. ``capabilities`` is an attribute, not a property."""

    capabilities: SpeechCapabilities = SpeechCapabilities()

    @abstractmethod
    def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AbstractAsyncContextManager[SpeechSession]:
        """A session for one call, which writes audio in ``audio_format``; ready when entered.

        ``voice`` is the value of ``speakerVoice``, ``speakerVoiceId``, ``voice`` or ``voiceId`` in
        the operator's block of this provider; if None, the provider chooses. It takes precedence
        over the provider's own configuration, because numbers that differ only in the voice share
        one provider. If cancelled, the session must end within two seconds, or the host abandons
        it. Raises :exc:`voicecall.errors.ProviderError`."""


# --- adapting a plain request ----------------------------------------------------------------


class PlainSpeechProvider(SpeechProvider):
    """Base for a vendor that turns one text into one stream of audio."""

    @property
    @abstractmethod
    def native_format(self) -> AudioFormat:
        """Format of the audio that :meth:`synthesize` yields."""

    @abstractmethod
    def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        """The audio of ``text``, in pieces of any size. Raises
        :exc:`voicecall.errors.ProviderError`."""

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            try:
                yield _PlainSession(self, voice, audio_format, tasks)
            except Exception as error:  # noqa: BLE001 (raised again, outside of the group)
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure


class _PlainSession(SpeechSession):
    def __init__(
        self,
        provider: PlainSpeechProvider,
        voice: str | None,
        audio_format: AudioFormat,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self.provider = provider
        self.voice = voice
        self.format = audio_format
        self.tasks = tasks

    def utterance(self, item_id: str, sink: AudioSink) -> Utterance:
        utterance = _PlainUtterance(self, item_id, sink)
        self.tasks.start_soon(utterance.run)
        return utterance


class _PlainUtterance(Utterance):
    """Speaks the texts one after another through one converter, and keeps where each begins. The
    words heard of the last text are estimated from the share of its audio that was heard."""

    def __init__(self, session: _PlainSession, item_id: str, sink: AudioSink) -> None:
        self._session = session
        self._item = item_id
        self._sink = sink
        self._texts: list[str] = []
        self._begun: list[tuple[str, int]] = []
        """The texts spoken so far, each with the number of bytes of audio before it."""
        self._written = 0
        self._more = anyio.Event()
        self._flushed = False
        self._finished = anyio.Event()
        self._scope = anyio.CancelScope()
        self._error: ProviderError | None = None

    def send(self, text: str) -> None:
        if text.strip():
            self._texts.append(text)
            self._more.set()

    def flush(self) -> None:
        self._flushed = True
        self._more.set()

    def cancel(self, heard_ms: float) -> str | None:
        self._scope.cancel()
        if not self._written:
            return None
        heard = self._session.format.size(heard_ms)
        said: list[str] = []
        for index, (text, begin) in enumerate(self._begun):
            if heard <= begin:
                break
            later = self._begun[index + 1 :]
            end = later[0][1] if later else self._written
            words = text.split()
            share = min((heard - begin) / (end - begin), 1.0) if end > begin else 1.0
            said += words[: int(len(words) * share + 0.5)]
        return " ".join(said)

    async def done(self) -> None:
        await self._finished.wait()
        if self._error is not None:
            raise self._error

    async def run(self) -> None:
        from .audio.convert import Converter

        converter = Converter(self._session.provider.native_format, self._session.format)
        try:
            with self._scope:
                while True:
                    while self._texts:
                        await self._speak(self._texts.pop(0), converter)
                    if self._flushed:
                        break
                    self._more = anyio.Event()
                    await self._more.wait()
                self._write(converter.flush())
        except ProviderError as error:
            self._error = error
        except Exception as error:
            self._error = self._lost(type(error).__name__)
            raise
        except SystemExit as error:
            # If it left this task, it would stop the whole gateway.
            self._error = self._lost("SystemExit")
            raise RuntimeError(f"it raised SystemExit: {error}") from error
        except anyio.get_cancelled_exc_class():
            # A failure of another utterance may have ended the session.
            self._error = self._lost("the session ended")
            raise
        finally:
            self._finished.set()

    def _lost(self, why: str) -> ProviderError:
        return ProviderUnavailable(why, provider=type(self._session.provider).__name__)

    async def _speak(self, text: str, converter: Converter) -> None:
        self._begun.append((text, self._written))
        pieces = self._session.provider.synthesize(text, self._session.voice)
        try:
            async for audio in pieces:
                # A generator that never waits could not be cancelled, and would block the loop.
                await anyio.lowlevel.checkpoint()
                self._write(converter.process(audio))
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    def _write(self, audio: bytes) -> None:
        if audio:
            self._written += len(audio)
            self._sink.write(self._item, audio)
