"""Keys that are understood and steer nothing yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from .config import VoiceCallConfig
from .speechconfig import TtsConfig

__all__ = ["unused_keys"]

_PHONE = (
    "tailscale.port",
    "tailscale.path",
    "tunnel.ngrokAuthToken",
    "tunnel.ngrokDomain",
    "tunnel.allowNgrokFreeTierLoopbackBypass",
)
_TTS = (
    "auto",
    "enabled",
    "mode",
    "persona",
    "personas",
    "summaryModel",
    "modelOverrides",
    "prefsPath",
)


def unused_keys(config: VoiceCallConfig) -> list[str]:
    """Keys of ``config`` that were given another value than their default, and change nothing."""
    values, usual = _dump(config), _dump(VoiceCallConfig())
    speech = {"tts": config.tts}
    speech |= {
        f"numbers.{key}.tts": route.tts for key, route in config.numbers.items() if route.tts
    }
    return [*_changed(values, usual, _PHONE), *_changed_speech(speech)]


def _changed_speech(blocks: Mapping[str, TtsConfig]) -> Iterator[str]:
    usual = _dump(TtsConfig())
    for path, block in blocks.items():
        for key in _changed(_dump(block), usual, _TTS):
            yield f"{path}.{key}"


def _dump(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(by_alias=True)


def _changed(
    values: Mapping[str, Any], usual: Mapping[str, Any], keys: tuple[str, ...]
) -> Iterator[str]:
    for key in keys:
        if _at(values, key) != _at(usual, key):
            yield key


def _at(values: Mapping[str, Any], path: str) -> Any:
    found: Any = values
    for part in path.split("."):
        found = found[part]
    return found
