"""Sections of the configuration file that belong to no plugin, as far as the phone reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from voicecall.configuring import deep_merge, validate
from voicecall.wording import did_you_mean
from voicecall_calls.config import CONFIG_PATH, VoiceCallConfig
from voicecall_calls.speechconfig import TtsConfig

__all__ = ["TTS_KEYS", "misspelt", "speech_keys", "speech_layers"]

TTS_KEYS = frozenset(field.alias or name for name, field in TtsConfig.model_fields.items())
_OTHERS = frozenset({"models"})
"""Keys of other programs that happen to resemble ours."""


def misspelt(path: str, values: Mapping[str, Any], known: Collection[str]) -> Iterator[str]:
    """A sentence for each key at ``path`` that resembles one of ``known``. Other unknown keys may
    belong to other programs."""
    for key in sorted(set(values) - set(known) - _OTHERS):
        if meant := did_you_mean(key, set(known) - set(values), 0.75):
            yield f"{path}.{key} is ignored{meant}"


def speech_layers(
    config: VoiceCallConfig, section: Mapping[str, Any]
) -> dict[str | None, TtsConfig]:
    """The ``tts`` sections of the gateway, the phone and the number, merged (later ones win), by
    the key of the number route; None is the key for all other calls. Raises ``ConfigError``."""
    core = {key: value for key, value in section.items() if key in TTS_KEYS}
    base = deep_merge(core, _given(config.tts))
    layers: dict[str | None, Mapping[str, Any]] = {None: base}
    for key, route in config.numbers.items():
        if route.tts is not None:
            layers[key] = deep_merge(base, _given(route.tts))
    return {key: validate(TtsConfig, layer, "tts") for key, layer in layers.items()}


def speech_keys(
    config: VoiceCallConfig, section: Mapping[str, Any], route_key: str | None
) -> tuple[str, str]:
    """Two keys, for error messages: the innermost one that names the provider, and the one that
    contains the blocks of providers, if only one does (else that of the ``tts`` section)."""
    route = config.numbers.get(route_key or "")
    places: dict[str, Mapping[str, Any]] = {
        "tts": section,
        f"{CONFIG_PATH}.tts": _given(config.tts),
    }
    if route is not None and route.tts is not None:
        places[f"{CONFIG_PATH}.numbers.{route_key}.tts"] = _given(route.tts)
    naming = [path for path, tts in places.items() if tts.get("provider") is not None]
    having = [path for path, tts in places.items() if tts.get("providers")]
    blocks = having[0] if len(having) == 1 else "tts"
    return f"{(naming or ['tts'])[-1]}.provider", f"{blocks}.providers"


def _given(tts: TtsConfig) -> dict[str, Any]:
    return tts.model_dump(by_alias=True, exclude_unset=True)
