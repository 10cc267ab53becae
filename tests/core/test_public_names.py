"""The public names of the core package, and what importing it costs."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import voicecall
from voicecall.agent import AgentBackend
from voicecall.coordinator import Coordinator
from voicecall.realtime import RealtimeProvider
from voicecall.store import CallStore
from voicecall.telephony import TelephonyProvider
from voicecall.transcription import TranscriptionProvider
from voicecall.tts import PlainSpeechProvider
from voicecall.tunnel import TunnelProvider
from voicecall.turn import TurnDetectorProvider

pytestmark = pytest.mark.unit


def test_names_of_the_package() -> None:
    assert voicecall.__all__ == [
        "API_VERSION",
        "MULAW_8K",
        "PCM16_8K",
        "PCM16_16K",
        "PCM16_24K",
        "AudioFormat",
        "LegacyKey",
        "Provider",
        "ProviderContext",
        "ProviderInfo",
        "ProviderKind",
        "hookimpl",
    ]


def modules() -> list[str]:
    return [found.name for found in pkgutil.walk_packages(voicecall.__path__, prefix="voicecall.")]


@pytest.mark.parametrize("name", ["voicecall", *modules()])
def test_every_public_name_exists_and_every_module_is_described(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert getattr(module, public) is not None


CONTRACTS = [
    (AgentBackend, "reply"),
    (CallStore, "commit"),
    (Coordinator, "acquire"),
    (PlainSpeechProvider, "synthesize"),
    (RealtimeProvider, "session"),
    (TelephonyProvider, "place_call"),
    (TranscriptionProvider, "session"),
    (TunnelProvider, "open"),
    (TurnDetectorProvider, "detector"),
]


@pytest.mark.parametrize(("contract", "method"), CONTRACTS)
def test_a_provider_without_a_method_of_its_contract_cannot_be_made(
    contract: type[voicecall.Provider], method: str
) -> None:
    class Lacking(contract):  # type: ignore[misc, valid-type]
        """Implements nothing."""

    with pytest.raises(TypeError, match=f"abstract method.*\\b{method}\\b"):
        Lacking()


def test_importing_the_package_costs_no_heavy_library() -> None:
    code = "import sys, voicecall, voicecall.registry; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "voicecall.registry" in loaded
    assert not loaded & {"numpy", "pydantic", "httpx", "sqlalchemy", "websockets", "asyncio"}
