"""voicecall: give an AI agent a telephone.

The names here are what every provider package needs; the contract of each kind of provider is in
``voicecall.telephony``, ``.transcription``, ``.tts``, ``.realtime``, ``.turn``, ``.agent``,
``.tunnel``, ``.store`` or ``.coordinator``.
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
