"""A caller with a synthetic voice on a telephone line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from importlib.resources import files

import pytest

from voicecall.audio import MULAW_8K, AudioFormat, Converter
from voicecall_stt_pocketsphinx.config import PocketsphinxConfig
from voicecall_tts_espeak.engine import Manner, shared_engine

Speak = Callable[..., bytes]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def speak() -> Speak:
    """``speak(text, voice=..., rate=...)``: mu-law at 8 kHz without silence around it."""

    def make(text: str, *, voice: str = "en-us+f2", rate: int = 150) -> bytes:
        engine = shared_engine()
        pcm = engine.speak(text, Manner(voice, rate, 50, 100))
        converter = Converter(AudioFormat("pcm16", engine.sample_rate), MULAW_8K)
        return (converter.process(pcm) + converter.flush()).strip(b"\xff\x7f\xfe\x7e")

    return make


@pytest.fixture(scope="session")
def clinic() -> PocketsphinxConfig:
    """The recogniser as the demo configures it."""
    text = files("voicecall_calls").joinpath("demo/grammar.jsgf").read_text("utf-8")
    return PocketsphinxConfig(grammar=text, pool=2, end_silence_ms=500)


@pytest.fixture(scope="session")
def sentences(clinic: PocketsphinxConfig) -> list[str]:
    """All sentences of the demo's grammar, which is a list of alternatives."""
    assert clinic.grammar is not None
    body = re.sub(r"/\*.*?\*/", "", clinic.grammar, flags=re.DOTALL)
    bodies = re.findall(r"<\w+> = ([^;<]+);", body)
    alternatives = itertools.chain.from_iterable(part.split("|") for part in bodies)
    return [" ".join(sentence.split()) for sentence in alternatives]
