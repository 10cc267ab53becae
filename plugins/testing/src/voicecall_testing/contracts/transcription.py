"""Conformance of a transcription provider (:mod:`voicecall.transcription`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import anyio
import pytest

from voicecall.audio import MULAW_8K, PCM16_8K, PCM16_16K, AudioFormat, Converter
from voicecall.transcription import (
    Final,
    Partial,
    SessionLost,
    SpeechEnded,
    SpeechStarted,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)

from .audio import frames, silence
from .patience import opened, within

__all__ = ["TranscriptionContract", "hear"]

_OTHER_FORMATS = [AudioFormat("alaw", 8000), PCM16_8K, PCM16_16K]
_PATIENCE_S = 60.0
_THE_END = "the end of the iteration after finish()"


async def hear(
    session: TranscriptionSession, audio: bytes, audio_format: AudioFormat = MULAW_8K
) -> list[TranscriptionEvent]:
    """Send ``audio`` in frames, finish, and collect all events. Raises ``TimeoutError`` if they do
    not end."""
    events: list[TranscriptionEvent] = []

    async def collect() -> None:
        events.extend([event async for event in session])

    with within(_PATIENCE_S, _THE_END):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect)
            for frame in frames(audio, audio_format):
                session.send_audio(frame)
                await anyio.sleep(0.002)
            await session.finish()
    return events


class TranscriptionContract(ABC):
    """Inherit, and override the fixtures ``provider`` and ``speech``.

    The test module marks itself with ``pytest.mark.contract`` and ``pytest.mark.anyio``.
    """

    options = TranscriptionOptions(audio_format=MULAW_8K, end_silence_ms=500)

    @pytest.fixture
    @abstractmethod
    def provider(self) -> TranscriptionProvider:
        """The provider under test. Its lifespan is entered by the suite."""

    @pytest.fixture
    @abstractmethod
    def speech(self) -> Sequence[tuple[str, bytes]]:
        """At least three sentences that the provider recognises: for each, the text of its
        ``Final``, and its audio, mu-law at 8 kHz, without silence before and after it."""

    def _padded(self, audio: bytes) -> bytes:
        after = self.options.end_silence_ms + 500
        return silence(500, MULAW_8K) + audio + silence(after, MULAW_8K)

    async def _heard(
        self, provider: TranscriptionProvider, audio: bytes
    ) -> list[TranscriptionEvent]:
        async with opened(provider.session(self.options)) as session:
            return await hear(session, audio)

    async def test_a_sentence_gives_its_events_in_order(
        self, provider: TranscriptionProvider, speech: Sequence[tuple[str, bytes]]
    ) -> None:
        text, audio = speech[0]
        async with provider.lifespan():
            events = await self._heard(provider, self._padded(audio))
        assert isinstance(events[0], SpeechStarted)
        assert isinstance(events[-1], SpeechEnded)
        assert [event.text for event in events if isinstance(event, Final)] == [text]
        kinds = [type(event) for event in events]
        assert kinds.index(Final) > kinds.index(SpeechStarted)
        assert Partial not in kinds[kinds.index(Final) :]
        if provider.capabilities.partials:
            assert Partial in kinds

    @pytest.mark.parametrize("audio_format", _OTHER_FORMATS, ids=str)
    async def test_other_formats_are_taken(
        self,
        provider: TranscriptionProvider,
        speech: Sequence[tuple[str, bytes]],
        audio_format: AudioFormat,
    ) -> None:
        text, audio = speech[0]
        options = replace(self.options, audio_format=audio_format)
        converted = Converter(MULAW_8K, audio_format).process(self._padded(audio))
        async with provider.lifespan(), opened(provider.session(options)) as session:
            events = await hear(session, converted, audio_format)
        assert [event.text for event in events if isinstance(event, Final)] == [text]

    async def test_events_carry_their_utterance_and_the_audio_clock(
        self, provider: TranscriptionProvider, speech: Sequence[tuple[str, bytes]]
    ) -> None:
        audio = self._padded(speech[0][1]) + self._padded(speech[1][1])
        async with provider.lifespan():
            events = await self._heard(provider, audio)
        placed = [event for event in events if not isinstance(event, SessionLost)]
        assert len(placed) == len(events)
        clock = [event.at_ms for event in placed]
        assert clock == sorted(clock)
        assert clock[-1] <= MULAW_8K.duration_ms(len(audio)) + 100
        numbers = [event.utterance for event in placed]
        assert numbers == sorted(numbers)
        finals = [event for event in placed if isinstance(event, Final)]
        assert [event.text for event in finals] == [speech[0][0], speech[1][0]]
        assert finals[0].utterance != finals[1].utterance
        started = [event.at_ms for event in placed if isinstance(event, SpeechStarted)]
        assert started[0] == pytest.approx(500, abs=250)

    async def test_silence_gives_nothing(self, provider: TranscriptionProvider) -> None:
        async with provider.lifespan():
            events = await self._heard(provider, silence(3000, MULAW_8K))
        assert events == []

    async def test_no_audio_gives_nothing(self, provider: TranscriptionProvider) -> None:
        async with provider.lifespan():
            assert await self._heard(provider, b"") == []

    async def test_audio_may_come_before_anyone_reads(
        self, provider: TranscriptionProvider, speech: Sequence[tuple[str, bytes]]
    ) -> None:
        text, audio = speech[0]
        async with provider.lifespan(), opened(provider.session(self.options)) as session:
            for frame in frames(self._padded(audio), MULAW_8K):
                session.send_audio(frame)
            with within(_PATIENCE_S, _THE_END):
                await session.finish()
                finals = [event.text async for event in session if isinstance(event, Final)]
        assert finals == [text]

    async def test_commit_ends_the_utterance(
        self, provider: TranscriptionProvider, speech: Sequence[tuple[str, bytes]]
    ) -> None:
        text, audio = speech[0]
        finals: list[str] = []
        async with provider.lifespan(), opened(provider.session(self.options)) as session:
            for frame in frames(silence(500, MULAW_8K) + audio, MULAW_8K):
                session.send_audio(frame)
            session.commit()
            with within(20, "the Final after commit()"):
                async for event in session:
                    if isinstance(event, Final):
                        finals.append(event.text)
                        break
        assert finals == [text]

    async def test_finish_delivers_what_was_being_said(
        self, provider: TranscriptionProvider, speech: Sequence[tuple[str, bytes]]
    ) -> None:
        text, audio = speech[0]
        async with provider.lifespan():
            events = await self._heard(provider, silence(500, MULAW_8K) + audio)
        assert [event.text for event in events if isinstance(event, Final)] == [text]

    async def test_calls_after_the_end_are_harmless(
        self, provider: TranscriptionProvider, speech: Sequence[tuple[str, bytes]]
    ) -> None:
        async with provider.lifespan(), opened(provider.session(self.options)) as session:
            await hear(session, silence(200, MULAW_8K))
            session.send_audio(speech[0][1])
            session.commit()
            with within(_PATIENCE_S, _THE_END):
                await session.finish()
                assert [event async for event in session] == []

    async def test_sessions_are_independent(
        self, provider: TranscriptionProvider, speech: Sequence[tuple[str, bytes]]
    ) -> None:
        heard: dict[str, list[str]] = {}

        async def caller(text: str, audio: bytes) -> None:
            events = await self._heard(provider, self._padded(audio))
            heard[text] = [event.text for event in events if isinstance(event, Final)]

        async with provider.lifespan(), anyio.create_task_group() as tasks:
            for text, audio in speech[:3]:
                tasks.start_soon(caller, text, audio)
        assert heard == {text: [text] for text, _ in speech[:3]}

    async def test_a_session_may_be_left_in_the_middle(
        self, provider: TranscriptionProvider, speech: Sequence[tuple[str, bytes]]
    ) -> None:
        text, audio = speech[0]
        async with provider.lifespan():
            async with opened(provider.session(self.options)) as session:
                for frame in frames(self._padded(speech[1][1])[: len(audio)], MULAW_8K):
                    session.send_audio(frame)
                await anyio.sleep(0.05)
            events = await self._heard(provider, self._padded(audio))
        assert [event.text for event in events if isinstance(event, Final)] == [text]
