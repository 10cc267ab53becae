"""Text as tones: the codec, and both speech providers against their conformance suites."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall.audio import MULAW_8K, PCM16_8K, mulaw_to_pcm16, pcm16_to_mulaw
from voicecall.transcription import Final, SpeechEnded, SpeechStarted, TranscriptionProvider
from voicecall.tts import SpeechProvider
from voicecall_testing.contracts.audio import silence
from voicecall_testing.contracts.transcription import TranscriptionContract, hear
from voicecall_testing.contracts.tts import SpeechContract
from voicecall_testing.fsk import MAX_BYTES, FskDecoder, decode, encode
from voicecall_testing.speech import FskSpeech, FskTranscription

pytestmark = [pytest.mark.contract, pytest.mark.anyio]

_TEXTS = st.text(max_size=30)


@given(texts=st.lists(_TEXTS, max_size=3), shift=st.integers(0, 400), piece=st.integers(1, 700))
@settings(max_examples=40)
def test_any_text_comes_back_wherever_it_begins(texts: list[str], shift: int, piece: int) -> None:
    audio = silence(60, MULAW_8K) + b"\xff" * shift + b"".join(encode(text) for text in texts)
    pcm = mulaw_to_pcm16(audio)
    decoder = FskDecoder()
    found: list[str | None] = []
    for start in range(0, len(pcm), 2 * piece):
        found += decoder.feed(pcm[start : start + 2 * piece])
    assert found + decoder.finish() == texts
    assert not decoder.receiving


@given(text=st.text(min_size=1, max_size=20), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_noise_does_no_harm(text: str, seed: int) -> None:
    clean = np.frombuffer(mulaw_to_pcm16(encode(text)), "<i2")
    noise = np.random.default_rng(seed).normal(0, 1000, len(clean))
    noisy = np.clip(clean + noise, -32768, 32767).astype("<i2").tobytes()
    assert decode(pcm16_to_mulaw(noisy)) == [text]


@given(text=st.text(min_size=1, max_size=20), share=st.floats(0, 1), other=_TEXTS)
@settings(max_examples=60)
def test_a_packet_cut_short_is_broken_and_the_next_one_is_whole(
    text: str, share: float, other: str
) -> None:
    audio = encode(text)
    # A little more than half of the last symbol's 80 samples is enough to decode it.
    cut = audio[: int((len(audio) - 80) * share)]
    assert set(decode(cut)) <= {None}
    assert set(decode(cut + silence(100, MULAW_8K))) <= {None}
    assert decode(cut + silence(100, MULAW_8K) + encode(other))[-1] == other


def test_a_damaged_packet_is_broken() -> None:
    symbols = encode("Hello.")
    audio = symbols[: 80 * 14] + symbols[80 * 9 : 80 * 10] + symbols[80 * 15 :]
    assert decode(audio) == [None]


def test_a_text_of_more_than_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="65536 bytes"):
        encode("a" * (MAX_BYTES + 1))


@pytest.mark.parametrize("sound_ms", [80, 600])
async def test_sound_without_words_is_noise_or_not_understood(sound_ms: int) -> None:
    tone = np.sin(np.arange(PCM16_8K.size(sound_ms) // 2) * 0.7) * 5000
    sound = pcm16_to_mulaw(tone.astype("<i2").tobytes())
    options = TestTranscription.options
    async with FskTranscription().session(options) as session:
        events = await hear(session, silence(200, MULAW_8K) + sound + silence(700, MULAW_8K))
    kinds = [type(event) for event in events]
    if sound_ms < 100:
        assert kinds == [SpeechStarted, SpeechEnded]
    else:
        assert kinds == [SpeechStarted, Final, SpeechEnded]
        assert [event.text for event in events if isinstance(event, Final)] == [""]


async def test_speech_that_is_cut_is_not_understood() -> None:
    audio = encode("First sentence.") + encode("Second sentence.")[:2000]
    async with FskTranscription().session(TestTranscription.options) as session:
        with anyio.fail_after(20):
            events = await hear(session, audio + silence(800, MULAW_8K))
    assert [event.text for event in events if isinstance(event, Final)] == [""]


class TestSpeech(SpeechContract):
    @pytest.fixture
    def provider(self) -> SpeechProvider:
        return FskSpeech()


class TestTranscription(TranscriptionContract):
    @pytest.fixture
    def provider(self) -> TranscriptionProvider:
        return FskTranscription()

    @pytest.fixture
    def speech(self) -> Sequence[tuple[str, bytes]]:
        texts = ("Good morning.", "I would like to book a table.", "Für vier Personen, bitte.")
        return [(text, encode(text)) for text in texts]
