"""The section ``tts`` of the file, which is no plugin's own, as far as the phone reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voicecall.configuring import deep_merge, validate
from voicecall_calls.config import VoiceCallConfig
from voicecall_calls.speechconfig import TtsConfig

__all__ = ["speech_layers"]


def speech_layers(
    config: VoiceCallConfig, section: Mapping[str, Any]
) -> dict[str | None, TtsConfig]:
    """Core, plugin and number ``tts`` merged (later wins), by the key of the number route; None is
    for every other call. Raises ``ConfigError``."""
    known = {field.alias or name for name, field in TtsConfig.model_fields.items()}
    core = {key: value for key, value in section.items() if key in known}
    base = deep_merge(core, _given(config.tts))
    layers: dict[str | None, Mapping[str, Any]] = {None: base}
    for key, route in config.numbers.items():
        if route.tts is not None:
            layers[key] = deep_merge(base, _given(route.tts))
    return {key: validate(TtsConfig, layer, "tts") for key, layer in layers.items()}


def _given(tts: TtsConfig) -> dict[str, Any]:
    return tts.model_dump(by_alias=True, exclude_unset=True)
