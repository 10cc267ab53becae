"""Conformance of a speech provider (:mod:`voicecall.tts`)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import anyio
import anyio.lowlevel
import pytest

from voicecall.audio import MULAW_8K, PCM16_8K, PCM16_16K, AudioFormat
from voicecall.tts import SpeechProvider, SpeechSession, Utterance

from .audio import RememberingSink, loudness
from .patience import opened, within

__all__ = ["SpeechContract"]

_FORMATS = [MULAW_8K, PCM16_8K, PCM16_16K]
_PATIENCE_S = 20.0


class _TellingSink(RememberingSink):
    """Sets ``begun`` at the first audio."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = anyio.Event()

    def write(self, item_id: str, audio: bytes) -> None:
        super().write(item_id, audio)
        self.begun.set()


async def _done(utterance: Utterance) -> None:
    with within(_PATIENCE_S, "the end of done()"):
        await utterance.done()


class SpeechContract(ABC):
    """Inherit, and override the fixture ``provider``.

    The provider may talk to an emulator; the fixture starts and stops it. The test module marks
    itself with ``pytest.mark.contract`` and ``pytest.mark.anyio``.
    """

    text = "Good morning. This is a short sentence."
    """A text of two sentences; override it for another language."""
    voice: str | None = None
    """The voice of the sessions; None for the configured one."""

    @pytest.fixture
    @abstractmethod
    def provider(self) -> SpeechProvider:
        """The provider under test. Its lifespan is entered by the suite."""

    async def _say(self, session: SpeechSession, sink: RememberingSink, item: str) -> bytes:
        utterance = session.utterance(item, sink)
        utterance.send(self.text)
        utterance.flush()
        await _done(utterance)
        return sink.audio(item)

    @pytest.mark.parametrize("audio_format", _FORMATS, ids=str)
    async def test_audio_comes_in_the_format_that_was_asked_for(
        self, provider: SpeechProvider, audio_format: AudioFormat
    ) -> None:
        async with (
            provider.lifespan(),
            opened(provider.session(self.voice, audio_format)) as session,
        ):
            audio = await self._say(session, RememberingSink(), "a")
        assert len(audio) % audio_format.sample_width == 0
        # Speech in the wrong encoding is either silence or noise at full scale.
        assert 200 < loudness(audio, audio_format) < 16_000
        words = len(self.text.split())
        seconds = audio_format.duration_ms(len(audio)) / 1000
        assert words / 8 < seconds < words * 2

    async def test_all_audio_was_written_when_done_returns(self, provider: SpeechProvider) -> None:
        sink = RememberingSink()
        async with provider.lifespan(), opened(provider.session(self.voice, MULAW_8K)) as session:
            audio = await self._say(session, sink, "a")
            await anyio.sleep(0.05)
            assert sink.audio("a") == audio
        assert sink.audio("a") == audio

    async def test_done_may_be_awaited_twice(self, provider: SpeechProvider) -> None:
        sink = RememberingSink()
        async with provider.lifespan(), opened(provider.session(self.voice, MULAW_8K)) as session:
            utterance = session.utterance("a", sink)
            utterance.send(self.text)
            utterance.flush()
            await _done(utterance)
            await _done(utterance)
        assert sink.audio("a")

    async def test_text_may_come_in_pieces(self, provider: SpeechProvider) -> None:
        sink = RememberingSink()
        async with provider.lifespan(), opened(provider.session(self.voice, MULAW_8K)) as session:
            whole = await self._say(session, sink, "whole")
            utterance = session.utterance("pieces", sink)
            for sentence in self.text.split(". "):
                utterance.send(sentence.rstrip(".") + ". ")
                await anyio.lowlevel.checkpoint()
            utterance.flush()
            await _done(utterance)
        # The same speech, apart from pauses.
        assert 0.6 < len(sink.audio("pieces")) / len(whole) < 1.6

    @pytest.mark.parametrize("text", [None, "", "  \n"])
    async def test_nothing_to_say_is_no_error(
        self, provider: SpeechProvider, text: str | None
    ) -> None:
        sink = RememberingSink()
        async with provider.lifespan(), opened(provider.session(self.voice, MULAW_8K)) as session:
            utterance = session.utterance("a", sink)
            if text is not None:
                utterance.send(text)
            utterance.flush()
            await _done(utterance)
        # The tail of a filter may come out, but nothing audible.
        audio = sink.audio("a")
        assert MULAW_8K.duration_ms(len(audio)) <= 20
        assert loudness(audio, MULAW_8K) < 20

    async def test_cancel_stops_the_audio(self, provider: SpeechProvider) -> None:
        sink = _TellingSink()
        async with provider.lifespan(), opened(provider.session(self.voice, MULAW_8K)) as session:
            utterance = session.utterance("a", sink)
            for _ in range(20):
                utterance.send(f"{self.text} ")
            utterance.flush()
            with within(_PATIENCE_S, "the first audio"):
                await sink.begun.wait()
            utterance.cancel(0)
            await _done(utterance)
            written = len(sink.audio("a"))
            await anyio.sleep(0.05)
            assert len(sink.audio("a")) == written
            whole = await self._say(session, sink, "b")
        assert written <= 2 * len(whole)

    async def test_cancel_after_the_end_changes_nothing(self, provider: SpeechProvider) -> None:
        sink = RememberingSink()
        async with provider.lifespan(), opened(provider.session(self.voice, MULAW_8K)) as session:
            utterance = session.utterance("a", sink)
            utterance.send(self.text)
            utterance.flush()
            await _done(utterance)
            audio = sink.audio("a")
            utterance.cancel(len(audio) / 8)
            await _done(utterance)
        assert sink.audio("a") == audio

    async def test_two_sessions_speak_at_once(self, provider: SpeechProvider) -> None:
        one, two = RememberingSink(), RememberingSink()
        async with (
            provider.lifespan(),
            opened(provider.session(self.voice, MULAW_8K)) as first,
            opened(provider.session(self.voice, PCM16_16K)) as second,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._say, first, one, "a")
            tasks.start_soon(self._say, second, two, "a")
        lengths = (
            MULAW_8K.duration_ms(len(one.audio("a"))),
            PCM16_16K.duration_ms(len(two.audio("a"))),
        )
        assert 0.8 < lengths[0] / lengths[1] < 1.25
        assert loudness(one.audio("a"), MULAW_8K) > 200
        assert loudness(two.audio("a"), PCM16_16K) > 200

    async def test_a_session_may_be_left_in_the_middle(self, provider: SpeechProvider) -> None:
        sink = RememberingSink()
        async with provider.lifespan():
            async with opened(provider.session(self.voice, MULAW_8K)) as session:
                utterance = session.utterance("a", sink)
                utterance.send(self.text)
            written = len(sink.audio("a"))
            await anyio.sleep(0.05)
            assert len(sink.audio("a")) == written
