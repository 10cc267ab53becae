"""Conformance of a full-duplex voice model (:mod:`voicecall.realtime`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import anyio
import pytest

from voicecall.audio import MULAW_8K, AudioFormat, Converter
from voicecall.realtime import (
    Interrupted,
    RealtimeEvent,
    RealtimeOptions,
    RealtimeProvider,
    RealtimeSession,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    Transcript,
)

from .audio import RememberingSink, frames, loudness, silence
from .patience import opened, within

__all__ = ["Duplex", "RealtimeContract"]

_PATIENCE_S = 20.0


@dataclass(slots=True)
class Duplex:
    """An open session, what it wrote, and the events read so far."""

    session: RealtimeSession
    sink: RememberingSink
    audio_format: AudioFormat
    events: list[RealtimeEvent] = field(default_factory=list)
    _news: anyio.Event = field(default_factory=anyio.Event)

    async def read(self) -> None:
        async for event in self.session:
            self.events.append(event)
            self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for events until ``condition()`` is true. Raises ``TimeoutError``."""
        with within(_PATIENCE_S, "what the test waits for in the model's events"):
            while not condition():
                self._news = anyio.Event()
                await self._news.wait()

    def done(self) -> list[ResponseDone]:
        return [event for event in self.events if isinstance(event, ResponseDone)]

    async def response(self, number: int = 1) -> ResponseDone:
        """The ``number``-th finished response."""
        await self.until(lambda: len(self.done()) >= number)
        return self.done()[number - 1]

    async def talk(self, speech: bytes) -> None:
        """Send caller audio, frame by frame in real time. ``speech`` is mu-law at 8 kHz; it is
        converted to the session's format."""
        for frame in frames(self.converted(speech), self.audio_format):
            self.session.send_audio(frame)
            await anyio.sleep(0.02)

    @property
    def written(self) -> int:
        """Bytes of model audio so far."""
        return sum(len(audio) for audio in self.sink.written.values())

    def converted(self, speech: bytes) -> bytes:
        """``speech``, mu-law at 8 kHz, converted to the session's format."""
        return Converter(MULAW_8K, self.audio_format).process(speech)

    def loudness(self, item: str) -> float:
        """Loudness of the audio written for ``item``."""
        return loudness(self.sink.audio(item), self.audio_format)


class RealtimeContract(ABC):
    """Inherit, and override the fixtures ``provider`` and ``speech``.

    The provider may talk to an emulator; the fixture starts and stops it. The test module marks
    itself with ``pytest.mark.contract`` and ``pytest.mark.anyio`` and may run on virtual time.
    """

    options = RealtimeOptions(sink=RememberingSink(), instructions="Be brief.")
    """Options of the sessions; the suite replaces sink, formats and ``interruptible``."""

    @pytest.fixture
    @abstractmethod
    def provider(self) -> RealtimeProvider:
        """The provider under test. Its lifespan is entered by the suite."""

    @pytest.fixture
    @abstractmethod
    def speech(self) -> bytes:
        """Caller speech, mu-law at 8 kHz, to which the model gives at least one complete response.
        It ends with enough silence for the model to notice that the caller has stopped."""

    @asynccontextmanager
    async def duplex(
        self,
        provider: RealtimeProvider,
        audio_format: AudioFormat | None = None,
        *,
        interruptible: bool = True,
    ) -> AsyncIterator[Duplex]:
        """A session in ``audio_format``, or in the provider's first format."""
        audio_format = audio_format or provider.capabilities.formats[0]
        sink = RememberingSink()
        options = replace(
            self.options,
            sink=sink,
            input_format=audio_format,
            output_format=audio_format,
            interruptible=interruptible,
        )
        async with (
            opened(provider.session(options)) as session,
            anyio.create_task_group() as tasks,
        ):
            duplex = Duplex(session, sink, audio_format)
            tasks.start_soon(duplex.read)
            yield duplex
            tasks.cancel_scope.cancel()

    async def test_it_speaks_some_format(self, provider: RealtimeProvider) -> None:
        formats = provider.capabilities.formats
        assert formats
        assert len(set(formats)) == len(formats)

    async def test_speech_draws_a_response_in_every_format(
        self, provider: RealtimeProvider, speech: bytes
    ) -> None:
        async with provider.lifespan():
            for audio_format in provider.capabilities.formats:
                async with self.duplex(provider, audio_format) as duplex:
                    await duplex.talk(speech)
                    done = await duplex.response()
                    assert done.status == "completed"
                    audio = b"".join(bytes(a) for a in duplex.sink.written.values())
                    assert len(audio) % audio_format.sample_width == 0
                    assert loudness(audio, audio_format) > 100

    async def test_a_response_starts_before_it_is_done(
        self, provider: RealtimeProvider, speech: bytes
    ) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            await duplex.talk(speech)
            done = await duplex.response()
            started = [e.response for e in duplex.events if isinstance(e, ResponseStarted)]
            assert started[0] == done.response
            assert duplex.events.index(ResponseStarted(done.response)) < duplex.events.index(done)
            assert set(done.items) <= set(duplex.sink.written)

    async def test_each_response_has_an_id_of_its_own(self, provider: RealtimeProvider) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            for number in (1, 2):
                await duplex.session.greet("Say hello.")
                await duplex.response(number)
            started = [e.response for e in duplex.events if isinstance(e, ResponseStarted)]
            assert all(started)
            assert len(set(started)) == len(started)
            assert {done.response for done in duplex.done()} <= set(started)

    async def test_all_audio_of_a_response_was_written_when_it_is_done(
        self, provider: RealtimeProvider
    ) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            await duplex.session.greet("Say hello.")
            await duplex.response()
            written = duplex.written
            assert written
            await anyio.sleep(0.1)
            assert duplex.written == written

    async def test_what_the_model_says_is_told_in_words(self, provider: RealtimeProvider) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            await duplex.session.greet("Say hello.")
            await duplex.response()
            items = set(duplex.sink.written)

            def told() -> bool:
                return any(
                    isinstance(e, Transcript) and e.role == "assistant" and e.final and e.text
                    for e in duplex.events
                )

            await duplex.until(told)
            for event in duplex.events:
                if isinstance(event, Transcript) and event.role == "assistant":
                    assert event.item in items

    async def test_it_says_what_it_is_asked_to(self, provider: RealtimeProvider) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            await duplex.session.say("Your table is ready.")
            assert (await duplex.response()).status == "completed"
            assert duplex.written

    async def test_context_draws_no_response(self, provider: RealtimeProvider) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            await duplex.session.add_context("The caller is a regular customer.")
            await anyio.sleep(0.2)
            assert not duplex.written
            assert not duplex.done()

    async def test_muted_it_hears_silence(self, provider: RealtimeProvider, speech: bytes) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            duplex.session.mute(True)
            await duplex.talk(speech)
            await anyio.sleep(0.2)
            heard = [
                e
                for e in duplex.events
                if isinstance(e, SpeechStarted) or (isinstance(e, Transcript) and e.role == "user")
            ]
            assert heard == []
            for item in duplex.sink.written:
                assert duplex.loudness(item) < 20
            duplex.session.mute(False)
            number = len(duplex.done()) + 1
            await duplex.talk(speech)
            await duplex.response(number)
            assert any(duplex.loudness(item) > 100 for item in duplex.sink.written)

    async def test_an_interrupted_item_gets_no_more_audio(
        self, provider: RealtimeProvider, speech: bytes
    ) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            await duplex.session.greet("Tell a long story.")
            await duplex.until(lambda: duplex.written > 0)
            items = list(duplex.sink.written)
            await duplex.session.interrupt(dict.fromkeys(items, 20.0))
            before = {item: len(duplex.sink.audio(item)) for item in items}
            await duplex.talk(speech)
            assert {item: len(duplex.sink.audio(item)) for item in items} == before

    async def test_where_the_caller_may_not_interrupt_the_answer_goes_on(
        self, provider: RealtimeProvider, speech: bytes
    ) -> None:
        async with (
            provider.lifespan(),
            self.duplex(provider, interruptible=False) as duplex,
        ):
            await duplex.session.greet("Tell a long story.")
            await duplex.until(lambda: duplex.written > 0)
            await duplex.talk(speech)
            assert (await duplex.response()).status == "completed"
            assert Interrupted() not in duplex.events

    async def test_interrupting_nothing_is_no_error(
        self, provider: RealtimeProvider, speech: bytes
    ) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            await duplex.session.interrupt({})
            await duplex.talk(speech)
            await duplex.response()
            assert duplex.written

    async def test_silence_of_the_line_is_no_error(self, provider: RealtimeProvider) -> None:
        async with provider.lifespan(), self.duplex(provider) as duplex:
            await duplex.talk(silence(500, MULAW_8K))
            duplex.session.send_audio(b"")

    async def test_two_sessions_do_not_mix(self, provider: RealtimeProvider, speech: bytes) -> None:
        async with (
            provider.lifespan(),
            self.duplex(provider) as one,
            self.duplex(provider) as other,
        ):
            await one.talk(speech)
            await one.response()
            assert one.written
            assert not other.written
            assert not other.done()

    async def test_a_session_may_be_left_in_the_middle(
        self, provider: RealtimeProvider, speech: bytes
    ) -> None:
        async with provider.lifespan():
            async with self.duplex(provider) as duplex:
                await duplex.talk(speech[: len(speech) // 2])
            written = duplex.written
            duplex.session.send_audio(duplex.converted(speech))
            await anyio.sleep(0.1)
            assert duplex.written == written
