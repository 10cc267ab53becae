"""voicecall: give an AI agent a telephone.

The names here are what a provider package needs; the contracts of each kind live in
``voicecall.telephony``, ``.transcription``, ``.tts``, ``.realtime``, ``.turn``, ``.agent``,
``.tunnel``, ``.store`` and ``.coordinator``.
"""

from __future__ import annotations

from .audio.formats import MULAW_8K, PCM16_8K, PCM16_16K, PCM16_24K, AudioFormat
from .hookspecs import hookimpl
from .providers import (
    API_VERSION,
    LegacyKey,
    Provider,
    ProviderContext,
    ProviderInfo,
    ProviderKind,
)

__all__ = [
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
