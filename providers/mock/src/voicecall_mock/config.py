"""Configuration block ``mock``."""

from __future__ import annotations

from pydantic import Field

from voicecall.configuring import ConfigModel, HttpUrl

__all__ = ["DEFAULT_AUTH_TOKEN", "MockConfig", "PhoneConfig"]

DEFAULT_AUTH_TOKEN = "loopback-only-mock-token"
"""The default of both the gateway and ``voicecall emulate mock``. It is no secret: the exchange
listens on loopback only, and signatures are checked so that this code is exercised."""


class PhoneConfig(ConfigModel):
    """The phones of an embedded exchange."""

    tts: str | None = Field(
        default=None, description="TTS provider that gives the phones a voice on media streams"
    )
    voice: str | None = Field(default=None, description="Voice of that provider")
    answer_after_ms: int = Field(default=300, ge=0, description="Ringing before a phone answers")


class MockConfig(ConfigModel):
    """The mock carrier. Without ``apiBaseUrl`` an exchange is embedded in the gateway."""

    api_base_url: HttpUrl | None = Field(
        default=None, description="URL of an exchange started with `voicecall emulate mock`"
    )
    auth_token: str = Field(
        default=DEFAULT_AUTH_TOKEN,
        min_length=8,
        repr=False,
        description="Bearer token for the REST API, and key of the webhook signatures",
    )
    phone: PhoneConfig = Field(default_factory=PhoneConfig)
