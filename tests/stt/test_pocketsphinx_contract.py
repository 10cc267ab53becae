"""PocketSphinx against the contract of transcription providers, with telephone audio."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import anyio.to_thread
import pytest

from voicecall import ProviderKind
from voicecall.audio import MULAW_8K, PCM16_16K, Converter
from voicecall.registry import Registry
from voicecall.transcription import (
    Final,
    SpeechEnded,
    SpeechStarted,
    TranscriptionOptions,
    TranscriptionProvider,
)
from voicecall_stt_pocketsphinx.config import PocketsphinxConfig
from voicecall_stt_pocketsphinx.decoding import Decoder, DecoderPool
from voicecall_stt_pocketsphinx.provider import PocketsphinxProvider
from voicecall_testing.contracts.audio import frames, silence
from voicecall_testing.contracts.failure import TranscriptionFailureContract
from voicecall_testing.contracts.transcription import TranscriptionContract, hear

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

Speak = Callable[..., bytes]
PATIENCE_S = 10.0


@pytest.fixture
def provider(clinic: PocketsphinxConfig) -> TranscriptionProvider:
    return PocketsphinxProvider(clinic)


class TestPocketsphinx(TranscriptionContract):
    @pytest.fixture
    def provider(self, clinic: PocketsphinxConfig) -> TranscriptionProvider:
        return PocketsphinxProvider(clinic)

    @pytest.fixture
    def speech(self, speak: Speak) -> Sequence[tuple[str, bytes]]:
        texts = ("can i speak to a doctor", "yes please", "monday afternoon please")
        return [(text, speak(text)) for text in texts]


class TestBrokenPocketsphinx(TranscriptionFailureContract):
    reason = "out of order"

    @pytest.fixture
    def failing(
        self, provider: TranscriptionProvider, monkeypatch: pytest.MonkeyPatch
    ) -> TranscriptionProvider:
        def broken(decoder: Decoder, pcm: bytes) -> None:
            raise RuntimeError("out of order")

        monkeypatch.setattr(Decoder, "feed", broken)
        return provider

    @pytest.fixture
    def audio(self, speak: Speak) -> bytes:
        return speak("yes please")


async def test_wideband_audio_is_understood_too(
    provider: TranscriptionProvider, speak: Speak
) -> None:
    audio = Converter(MULAW_8K, PCM16_16K).process(speak("yes please"))
    options = TranscriptionOptions(audio_format=PCM16_16K, end_silence_ms=500)
    async with provider.lifespan(), provider.session(options) as session:
        for frame in frames(audio + silence(800, PCM16_16K), PCM16_16K):
            session.send_audio(frame)
        await session.finish()
        finals = [event.text async for event in session if isinstance(event, Final)]
    assert finals == ["yes please"]


async def test_too_much_audio_at_once_loses_the_oldest(
    provider: TranscriptionProvider, speak: Speak
) -> None:
    lost = speak("can i speak to a doctor") + silence(800, MULAW_8K)
    kept = silence(3500, MULAW_8K) + speak("goodbye") + silence(600, MULAW_8K)
    async with provider.lifespan(), provider.session(TranscriptionOptions()) as session:
        for frame in frames(lost + kept, MULAW_8K):
            session.send_audio(frame)
        await session.finish()
        events = [event async for event in session]
    (final,) = [event for event in events if isinstance(event, Final)]
    assert final.text == "goodbye"
    # The clock counts what was lost.
    whole = MULAW_8K.duration_ms(len(lost + kept))
    assert whole - 500 < final.at_ms <= whole


async def test_a_decoder_that_hangs_does_not_hold_up_the_end_of_its_session(
    provider: TranscriptionProvider, speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, go_on, given_back = threading.Event(), threading.Event(), threading.Event()
    done: list[str] = []
    give_back = DecoderPool.give_back

    def hang(decoder: Decoder, pcm: bytes) -> None:
        if not at_work.is_set():
            at_work.set()
            go_on.wait(PATIENCE_S)
        done.append("work")

    def take_back(pool: DecoderPool, decoder: Decoder) -> None:
        done.append("given back")
        give_back(pool, decoder)
        given_back.set()

    async with provider.lifespan():
        monkeypatch.setattr(Decoder, "feed", hang)
        monkeypatch.setattr(DecoderPool, "give_back", take_back)
        async with provider.session(TranscriptionOptions()) as session:
            session.send_audio(speak("yes please"))
            assert await anyio.to_thread.run_sync(at_work.wait, PATIENCE_S)
        # The decoder must not be used meanwhile.
        assert done == []
        go_on.set()
        assert await anyio.to_thread.run_sync(given_back.wait, PATIENCE_S)
    assert done[-1] == "given back"
    assert done.count("given back") == 1


async def test_a_click_is_no_speech(provider: TranscriptionProvider, speak: Speak) -> None:
    word = speak("goodbye")
    audio = silence(500, MULAW_8K) + word[800:1900] + silence(900, MULAW_8K)
    async with (
        provider.lifespan(),
        provider.session(TranscriptionOptions(end_silence_ms=500)) as session,
    ):
        events = await hear(session, audio)
    assert [type(event) for event in events] == [SpeechStarted, SpeechEnded]


async def test_an_error_of_the_host_leaves_the_session_as_it_is(
    provider: TranscriptionProvider,
) -> None:
    with pytest.raises(LookupError, match="of the host"):
        async with provider.lifespan(), provider.session(TranscriptionOptions()):
            raise LookupError("of the host")


def test_it_is_found_and_never_chosen_automatically() -> None:
    info = Registry().load(ProviderKind.TRANSCRIPTION, "pocketsphinx")
    assert info.demo
    assert info.config_model is not None
