"""Keys and blocks of the configuration that are accepted but have no effect, or none yet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from voicecall.model import MediaPath
from voicecall.providers import ProviderKind
from voicecall.registry import Registry
from voicecall.wording import did_you_mean

from .config import CONFIG_PATH, BargeInConfig, SilenceConfig, VoiceCallConfig
from .speechconfig import TtsConfig

__all__ = ["ignored_blocks", "of_other_calls", "spoken_fields", "unused_keys"]

_FIELD = re.compile(r"\{[^{}]*\}")
_NOT_YET = frozenset({"callbacks", "live", "reports", "voicemail"})
"""Blocks of newer OpenClaw files, at the level where carriers' blocks are."""
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


def of_other_calls(config: VoiceCallConfig, media: MediaPath) -> Iterator[str]:
    """A sentence for each configured block that does not apply to the media path in use."""
    if media is MediaPath.NATIVE and config.barge_in != BargeInConfig():
        why = "on turn-based calls the carrier does the listening"
        yield f"{CONFIG_PATH}.bargeIn has no effect: {why}"
    if media is MediaPath.REALTIME and config.silence != SilenceConfig():
        why = "the voice model deals with silent callers"
        yield f"{CONFIG_PATH}.silence has no effect: {why}"


def ignored_blocks(config: VoiceCallConfig, registry: Registry) -> Iterator[str]:
    installed = set(registry.ids(ProviderKind.TELEPHONY))
    # A carrier that is installed may be named by one of its aliases.
    for block in sorted(set(config.carriers) - installed - {config.provider}):
        why = "no such carrier is installed" + did_you_mean(block, installed, 0.75)
        if block in _NOT_YET:
            why = "this is not supported yet"
        yield f"{CONFIG_PATH}.{block} is ignored: {why}"


def spoken_fields(config: VoiceCallConfig) -> Iterator[str]:
    """A note for each text in a fixed phrase that looks like a field to fill in, except the code in
    ``pairing``, which is filled in."""
    texts = {f"phrases.{key}": text for key, text in _dump(config.phrases).items()}
    texts["inboundGreeting"] = config.inbound_greeting
    for number, route in config.numbers.items():
        texts[f"numbers.{number}.inboundGreeting"] = route.inbound_greeting
    for key, text in texts.items():
        for field in dict.fromkeys(_FIELD.findall(text or "")):
            if (key, field) != ("phrases.pairing", "{code}"):
                yield f"{CONFIG_PATH}.{key}: {field} is spoken literally"


def unused_keys(config: VoiceCallConfig) -> list[str]:
    """Keys of ``config`` that differ from their default but have no effect."""
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
