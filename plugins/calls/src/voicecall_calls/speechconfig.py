"""Configuration of speech: the ``tts`` sections of the gateway, the phone and its numbers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from voicecall.configuring import ConfigModel

__all__ = ["ModelOverrides", "TtsConfig"]


class ModelOverrides(ConfigModel):
    """What a language model may choose by directives in its text."""

    enabled: bool | None = None
    allow_text: bool | None = None
    allow_provider: bool | None = None
    allow_voice: bool | None = None
    allow_model_id: bool | None = None
    allow_voice_settings: bool | None = None
    allow_normalization: bool | None = None
    allow_seed: bool | None = None


class TtsConfig(ConfigModel):
    """Which provider speaks, and how."""

    provider: str | None = Field(default=None, min_length=1)
    providers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    timeout_ms: int = Field(default=8000, ge=1000, le=120_000)
    max_text_length: PositiveInt = 4096

    auto: Literal["off", "always", "inbound", "tagged"] | None = None
    enabled: bool | None = None
    mode: Literal["final", "all"] | None = None
    persona: str | None = Field(default=None, min_length=1)
    personas: dict[str, dict[str, Any]] = Field(default_factory=dict)
    summary_model: str | None = Field(default=None, min_length=1)
    model_overrides: ModelOverrides = Field(default_factory=ModelOverrides)
    prefs_path: str | None = Field(default=None, min_length=1)
