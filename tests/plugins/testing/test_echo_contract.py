"""The echo model against the realtime contract, and what it promises beyond that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from voicecall.audio import MULAW_8K, PCM16_24K
from voicecall.errors import RequestRejected
from voicecall.providers import ProviderKind
from voicecall.realtime import RealtimeOptions, RealtimeSession, Transcript
from voicecall.registry import Registry
from voicecall_testing.clock import virtual_backend
from voicecall_testing.contracts.realtime import RealtimeContract
from voicecall_testing.echo import CAPABILITIES, LINE_CHECK, EchoProvider

pytestmark = [pytest.mark.contract, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class TestEcho(RealtimeContract):
    @pytest.fixture
    def provider(self) -> EchoProvider:
        return EchoProvider()

    @pytest.fixture
    def speech(self) -> bytes:
        return bytes((7 * n) % 256 for n in range(MULAW_8K.size(2100)))

    async def test_the_audio_is_returned_as_it_came(
        self, provider: EchoProvider, speech: bytes
    ) -> None:
        async with self.duplex(provider) as duplex:
            await duplex.talk(speech)
            assert b"".join(map(bytes, duplex.sink.written.values())) == speech
            assert list(duplex.sink.written) == ["echo-1", "echo-2"]
            await duplex.response()
            assert Transcript("assistant", "echo-1", LINE_CHECK, final=True) in duplex.events

    async def test_after_a_tone_the_echo_is_in_real_time_again(
        self, provider: EchoProvider, speech: bytes
    ) -> None:
        async with self.duplex(provider) as duplex:
            await duplex.session.say("Hello.")
            await duplex.talk(speech)
            assert len(duplex.sink.audio("echo-1")) == MULAW_8K.size(200)
            assert duplex.written == len(speech)
            assert duplex.sink.audio("echo-2") == speech[MULAW_8K.size(200) :]

    async def test_responses_are_as_long_as_is_drawn(self, speech: bytes) -> None:
        lengths = iter([1000.0, 1500.0, 2000.0])
        async with self.duplex(EchoProvider(lambda: next(lengths))) as duplex:
            await duplex.talk(speech * 2)
            sizes = [len(audio) for audio in duplex.sink.written.values()]
            assert sizes == [MULAW_8K.size(length) for length in (1000, 1500, 1700)]


class LinearEcho(EchoProvider):
    """It accepts only linear audio at 24 kHz."""

    capabilities = replace(CAPABILITIES, formats=(PCM16_24K,))

    def session(self, options: RealtimeOptions) -> AbstractAsyncContextManager[RealtimeSession]:
        if {options.input_format, options.output_format} != {PCM16_24K}:
            raise RequestRejected("another format", provider="echo")
        return super().session(options)


class TestLinearEcho(RealtimeContract):
    @pytest.fixture
    def provider(self) -> LinearEcho:
        return LinearEcho()

    @pytest.fixture
    def speech(self) -> bytes:
        return bytes((7 * n) % 256 for n in range(MULAW_8K.size(2100)))


class TestEmulatedEcho(RealtimeContract):
    """Its fixture starts and stops something, as one for a vendor's emulator would."""

    @pytest.fixture
    async def provider(self) -> AsyncIterator[EchoProvider]:
        async with anyio.create_task_group() as emulator:
            emulator.start_soon(anyio.sleep_forever)
            yield EchoProvider()
            emulator.cancel_scope.cancel()

    @pytest.fixture
    def speech(self) -> bytes:
        return bytes((7 * n) % 256 for n in range(MULAW_8K.size(2100)))


def test_it_is_found_and_never_chosen_by_itself() -> None:
    info = Registry().load(ProviderKind.REALTIME, "echo")
    assert info.demo
    assert info.capabilities == EchoProvider.capabilities
