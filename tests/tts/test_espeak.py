"""eSpeak NG: the contract of speech providers, voices, and how text is cut."""

from __future__ import annotations

import re
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voicecall import ProviderKind
from voicecall.audio import MULAW_8K
from voicecall.configuring import validate
from voicecall.errors import ConfigError, RequestRejected
from voicecall.registry import Registry
from voicecall.tts import SpeechProvider
from voicecall_testing.contracts.audio import RememberingSink
from voicecall_testing.contracts.failure import SpeechFailureContract
from voicecall_testing.contracts.tts import SpeechContract
from voicecall_tts_espeak.config import EspeakConfig
from voicecall_tts_espeak.engine import Manner, shared_engine
from voicecall_tts_espeak.provider import EspeakProvider, pieces

pytestmark = [pytest.mark.contract, pytest.mark.anyio]


class TestEspeak(SpeechContract):
    voice = "en"

    @pytest.fixture
    def provider(self) -> SpeechProvider:
        return EspeakProvider(EspeakConfig())


class TestEspeakWithoutItsVoice(SpeechFailureContract):
    voice = "xx-nobody"
    reason = "no voice xx-nobody"

    @pytest.fixture
    def failing(self) -> SpeechProvider:
        return EspeakProvider(EspeakConfig())


async def _spoken(provider: EspeakProvider, text: str, voice: str | None = None) -> bytes:
    sink = RememberingSink()
    async with provider.lifespan(), provider.session(voice, MULAW_8K) as session:
        utterance = session.utterance("a", sink)
        utterance.send(text)
        utterance.flush()
        await utterance.done()
    return sink.audio("a")


async def test_a_faster_rate_is_shorter() -> None:
    text = "How long this takes depends on the rate."
    slow = await _spoken(EspeakProvider(EspeakConfig(rate=100)), text)
    fast = await _spoken(EspeakProvider(EspeakConfig(rate=250)), text)
    assert len(fast) < 0.7 * len(slow)


def test_a_voice_is_checked_without_speaking() -> None:
    check = Registry().load(ProviderKind.TTS, "espeak").check
    assert check is not None
    assert check(EspeakConfig(), ()) == ()
    assert check(EspeakConfig(voice="English (America)+f2"), ()) == ()
    # The library itself takes the last three: with no variant, and with a variant alone.
    for voice in ("xx-nobody", "en-us+nosuch", "en-us+", "f2"):
        with pytest.raises(ConfigError, match=rf"espeak\.voice: .*no voice {re.escape(voice)}$"):
            check(EspeakConfig(voice=voice), ())


async def test_an_unknown_voice_of_a_call_is_refused() -> None:
    provider = EspeakProvider(EspeakConfig())
    async with provider.session("xx-nobody", MULAW_8K) as session:
        utterance = session.utterance("a", RememberingSink())
        utterance.send("Hello.")
        utterance.flush()
        with pytest.raises(RequestRejected, match="no voice xx-nobody"):
            await utterance.done()


async def test_an_unknown_voice_in_the_configuration_stops_the_start() -> None:
    provider = EspeakProvider(EspeakConfig(voice="xx-nobody"))
    with pytest.raises(ConfigError, match=r"espeak\.voice: .*xx-nobody"):
        async with provider.lifespan():
            pass


async def test_markup_and_control_characters_are_text() -> None:
    audio = await _spoken(EspeakProvider(EspeakConfig()), "a <break time='60s'/> b \x00 & ü \ud800")
    assert 0 < len(audio) < 8000 * 10


def test_threads_do_not_mix_their_audio() -> None:
    engine = shared_engine()
    long, short = "one two three four five six seven eight nine ten", "one"
    manner = Manner("en-us", 150, 50, 100)
    expected = {text: len(engine.speak(text, manner)) for text in (long, short)}
    lengths: list[tuple[str, int]] = []

    def speak(text: str) -> None:
        lengths.extend([(text, len(engine.speak(text, manner))) for _ in range(10)])

    threads = [threading.Thread(target=speak, args=(text,)) for text in (long, short)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lengths) == 20
    for text, length in lengths:
        assert length == pytest.approx(expected[text], rel=0.1)


@settings(max_examples=50)
@given(st.text(alphabet="ab .!?\n", max_size=1500))
@example("word " * 100)
@example("a" * 900)
def test_cutting_loses_nothing(text: str) -> None:
    cut = pieces(text)
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(0 < len(piece) <= 400 for piece in cut)


def test_it_is_found_and_never_chosen_automatically() -> None:
    info = Registry().load(ProviderKind.TTS, "espeak")
    assert info.demo
    assert info.config_model is not None
    with pytest.raises(ConfigError, match="rate"):
        validate(info.config_model(), {"rate": 1}, "tts.providers.espeak")
