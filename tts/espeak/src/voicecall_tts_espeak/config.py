"""Configuration block ``espeak``."""

from __future__ import annotations

from pydantic import Field

from voicecall.configuring import ConfigModel

__all__ = ["EspeakConfig"]


class EspeakConfig(ConfigModel):
    """Local speech synthesis with eSpeak NG."""

    voice: str = Field(
        default="en-us",
        description="Voice, with its variant after a plus: en (British), en-us, en-us+f2",
    )
    rate: int = Field(default=150, ge=80, le=450, description="Words per minute")
    pitch: int = Field(default=50, ge=0, le=100, description="Base pitch")
    volume: int = Field(default=100, ge=0, le=200, description="Loudness in percent of the default")
