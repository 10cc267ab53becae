"""A caller with a synthetic voice on a telephone line."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import json5
import pytest

from voicecall.audio import MULAW_8K, AudioFormat, Converter
from voicecall_stt_pocketsphinx.config import PocketsphinxConfig
from voicecall_tts_espeak.engine import Manner, shared_engine

Speak = Callable[..., bytes]


@pytest.fixture
def speak() -> Speak:
    """``speak(text, voice=..., rate=...)``: mu-law at 8 kHz, trimmed of silence."""

    def make(text: str, *, voice: str = "en-us+f2", rate: int = 150) -> bytes:
        engine = shared_engine()
        pcm = engine.speak(text, Manner(voice, rate, 50, 100))
        converter = Converter(AudioFormat("pcm16", engine.sample_rate), MULAW_8K)
        return (converter.process(pcm) + converter.flush()).strip(b"\xff\x7f\xfe\x7e")

    return make


@pytest.fixture(scope="session")
def clinic() -> PocketsphinxConfig:
    """The recogniser as the demo configures it."""
    demo: Any = json5.loads(
        files("voicecall_calls").joinpath("demo/config.json5").read_text("utf-8")
    )
    streaming = demo["plugins"]["entries"]["voice-call"]["config"]["streaming"]
    block = {**streaming["providers"]["pocketsphinx"], "pool": 2, "endSilenceMs": 500}
    return PocketsphinxConfig.model_validate(block)


@pytest.fixture(scope="session")
def sentences(clinic: PocketsphinxConfig) -> list[str]:
    """All sentences of the demo."""
    return list(clinic.phrases)
