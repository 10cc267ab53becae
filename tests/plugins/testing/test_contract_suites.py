"""The conformance suites against providers that do not conform."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

from voicecall.audio import MULAW_8K
from voicecall.realtime import RealtimeOptions, RealtimeProvider, RealtimeSession
from voicecall.transcription import (
    SpeechStarted,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)
from voicecall_testing.clock import virtual_backend
from voicecall_testing.contracts.audio import silence
from voicecall_testing.contracts.realtime import RealtimeContract
from voicecall_testing.contracts.transcription import TranscriptionContract, hear
from voicecall_testing.echo import EchoProvider

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


# --- a recogniser whose events never end ------------------------------------------------------


class EndlessSession(TranscriptionSession):
    def send_audio(self, audio: bytes) -> None: ...

    def commit(self) -> None: ...

    async def finish(self) -> None: ...

    async def __aiter__(self) -> AsyncIterator[TranscriptionEvent]:
        yield SpeechStarted(utterance=1, at_ms=0)
        await anyio.sleep_forever()


class Endless(TranscriptionProvider):
    @asynccontextmanager
    async def session(self, options: TranscriptionOptions) -> AsyncIterator[TranscriptionSession]:
        yield EndlessSession()


class EndlessSuite(TranscriptionContract):
    @pytest.fixture
    def provider(self) -> TranscriptionProvider:
        return Endless()

    @pytest.fixture
    def speech(self) -> Sequence[tuple[str, bytes]]:
        return []


async def test_a_recogniser_that_never_ends_is_given_up() -> None:
    sentence = ("hello", silence(100, MULAW_8K))
    with pytest.raises(TimeoutError, match=r"the end of the iteration after finish\(\)"):
        await hear(EndlessSession(), sentence[1])
    suite = EndlessSuite()
    with pytest.raises(TimeoutError, match="the end of the iteration"):
        await suite.test_audio_may_come_before_anyone_reads(Endless(), [sentence])
    with pytest.raises(TimeoutError, match=r"the Final after commit\(\)"):
        await suite.test_commit_ends_the_utterance(Endless(), [sentence])


# --- a voice model that never opens -----------------------------------------------------------


class Shut(EchoProvider):
    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[RealtimeSession]:
        async with super().session(options) as session:
            await anyio.sleep_forever()
            yield session


class ShutSuite(RealtimeContract):
    @pytest.fixture
    def provider(self) -> RealtimeProvider:
        return Shut()

    @pytest.fixture
    def speech(self) -> bytes:
        return b""


async def test_a_voice_model_that_never_opens_is_given_up() -> None:
    with pytest.raises(TimeoutError, match="a session that opens and closes: waited 20 s"):
        await ShutSuite().test_context_draws_no_response(Shut())
