"""Conformance of recognisers, voices and voice models that fail: they must do so soon, every time,
and with a reason that the host can log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from voicecall import realtime, transcription
from voicecall.audio import MULAW_8K
from voicecall.errors import ProviderError, ProviderUnavailable
from voicecall.realtime import RealtimeOptions, RealtimeProvider, RealtimeSession
from voicecall.transcription import (
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)
from voicecall.tts import SpeechProvider

from .audio import RememberingSink, silence
from .patience import within

__all__ = ["RealtimeFailureContract", "SpeechFailureContract", "TranscriptionFailureContract"]

_PATIENCE_S = 20.0


class _FailureContract:
    reason: str | None = None
    """A pattern that the error, or the reason of a loss, must match: the vendor's message, say."""

    @contextmanager
    def failure(self) -> Iterator[None]:
        """Expect a ``ProviderError`` that names its provider, in time."""
        with (
            within(_PATIENCE_S, "a ProviderError or a fatal SessionLost"),
            pytest.raises(ProviderError, match=self.reason) as raised,
        ):
            yield
        assert raised.value.provider


async def _loss(session: TranscriptionSession | RealtimeSession) -> ProviderError:
    """The fatal loss that a session reports, as an error."""
    async for event in session:
        if isinstance(event, transcription.SessionLost | realtime.SessionLost) and event.fatal:
            # Audio that comes after the loss must not raise.
            session.send_audio(silence(20, MULAW_8K))
            assert event.reason
            return ProviderUnavailable(event.reason, provider="session")
    raise AssertionError("the events end without a fatal SessionLost")


class SpeechFailureContract(_FailureContract, ABC):
    """For providers that can fail. Override the fixture ``failing``."""

    voice: str | None = None
    """The voice of the sessions; None for the configured one."""

    @pytest.fixture
    @abstractmethod
    def failing(self) -> SpeechProvider:
        """A provider that fails on every text. Its lifespan is entered by the suite."""

    async def test_a_failure_is_told(self, failing: SpeechProvider) -> None:
        async with failing.lifespan():
            for _ in range(2):
                with self.failure():
                    async with failing.session(self.voice, MULAW_8K) as session:
                        utterance = session.utterance("a", RememberingSink())
                        utterance.send("Good morning.")
                        utterance.flush()
                        await utterance.done()


class TranscriptionFailureContract(_FailureContract, ABC):
    """For providers that can fail. Override the fixture ``failing``."""

    @pytest.fixture
    @abstractmethod
    def failing(self) -> TranscriptionProvider:
        """A provider that opens no session, or loses each one for good once it gets ``audio``. Its
        lifespan is entered by the suite."""

    @pytest.fixture
    def audio(self) -> bytes:
        """Caller audio, mu-law at 8 kHz."""
        return silence(1000, MULAW_8K)

    async def test_a_failure_is_told(self, failing: TranscriptionProvider, audio: bytes) -> None:
        async with failing.lifespan():
            for _ in range(2):
                with self.failure():
                    async with failing.session(TranscriptionOptions()) as session:
                        session.send_audio(audio)
                        loss = await _loss(session)
                    raise loss


class RealtimeFailureContract(_FailureContract, ABC):
    """For models that can fail. Override the fixture ``failing``."""

    @pytest.fixture
    @abstractmethod
    def failing(self) -> RealtimeProvider:
        """A provider that opens no session, or loses each one for good once it is asked to speak.
        Its lifespan is entered by the suite."""

    async def test_a_failure_is_told(self, failing: RealtimeProvider) -> None:
        best = failing.capabilities.formats[0]
        options = RealtimeOptions(sink=RememberingSink(), input_format=best, output_format=best)
        async with failing.lifespan():
            for _ in range(2):
                with self.failure():
                    async with failing.session(options) as session:
                        await session.greet("Say hello.")
                        loss = await _loss(session)
                    raise loss
