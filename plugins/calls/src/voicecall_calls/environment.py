"""Keys of the phone that may come from a carrier's environment variables."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic.alias_generators import to_snake

from voicecall.configuring import validate
from voicecall.providers import ProviderInfo
from voicecall_calls.config import CONFIG_PATH, VoiceCallConfig

__all__ = ["with_environment"]


def with_environment(
    config: VoiceCallConfig, carrier: ProviderInfo | None, environ: Mapping[str, str]
) -> VoiceCallConfig:
    """``config`` with keys that are missing or null filled in from the carrier's environment
    variables. Raises ``ConfigError`` for an invalid value."""
    given = {} if carrier is None else carrier.environ
    unset = {key: variable for key, variable in given.items() if not _is_given(config, key)}
    found = {
        key: environ[variable].strip()
        for key, variable in unset.items()
        if environ.get(variable, "").strip()
    }
    if not found:
        return config
    values = config.model_dump(by_alias=True, exclude_unset=True)
    values["carriers"] = config.carriers
    return validate(VoiceCallConfig, {**values, **found}, CONFIG_PATH, env=unset)


def _is_given(config: VoiceCallConfig, key: str) -> bool:
    name = to_snake(key)
    return name in config.model_fields_set and getattr(config, name) is not None
