"""Keys of older configurations of the phone, and their present names. Keys that only one provider
ever had are declared by that provider's package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from voicecall.hosting import LegacyRule
from voicecall_gateway.legacy import TTS_KEYS

__all__ = ["legacy_rules"]

_OWN_BLOCKS = frozenset(
    {
        "bargeIn",
        "numbers",
        "outbound",
        "phrases",
        "realtime",
        "serve",
        "silence",
        "streaming",
        "tailscale",
        "tts",
        "tunnel",
        "webhookSecurity",
    }
)
_CHOSEN = "streaming.providers.{=streaming.provider}"
_ONLY = "streaming.providers.{=streaming.providers}"


def legacy_rules() -> Sequence[LegacyRule]:
    """In the order in which they are applied."""
    return [
        LegacyRule("provider", "provider", values={"log": "mock"}),
        LegacyRule("{carrier}.from", "fromNumber", reserved=_OWN_BLOCKS),
        LegacyRule("streaming.sttProvider", "streaming.provider"),
        LegacyRule("streaming.{vendor}ApiKey", "streaming.providers.{vendor}.apiKey"),
        *_transcription(_CHOSEN),
        *_transcription(_ONLY),
        LegacyRule("streaming.sttModel"),
        LegacyRule("streaming.silenceDurationMs"),
        LegacyRule("streaming.vadThreshold"),
        LegacyRule("realtime.agentContext.includeSystemPrompt"),
        LegacyRule("tts.enabled"),
        LegacyRule("tts.{provider}", "tts.providers.{provider}", reserved=TTS_KEYS, objects=True),
        LegacyRule(
            "numbers.{number}.tts.{provider}",
            "numbers.{number}.tts.providers.{provider}",
            reserved=TTS_KEYS,
            objects=True,
        ),
    ]


def _transcription(block: str) -> Sequence[LegacyRule]:
    """Keys of the transcription provider that used to be next to its name."""
    return [
        LegacyRule("streaming.sttModel", f"{block}.model"),
        LegacyRule("streaming.silenceDurationMs", f"{block}.silenceDurationMs", convert=_finite),
        LegacyRule("streaming.vadThreshold", f"{block}.vadThreshold", convert=_finite),
    ]


def _finite(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("not a finite number")
    return value
