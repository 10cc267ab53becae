"""Configuration block ``twilio``."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from voicecall.configuring import ConfigModel, HttpUrl

from .twiml import is_voice

__all__ = ["TwilioConfig"]

_EDGES = {"ie1": "dublin", "au1": "sydney"}
"""The default edge of each region whose host name needs one."""
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})+")
"""A language with its region: without one, Twilio recognises nothing. Source: Twilio's errors 13331
and 13512."""
_SID = re.compile("AC[0-9A-Za-z]+")


def _account_sid(text: str) -> str:
    if _SID.fullmatch(text) is None:
        raise ValueError(
            "must be the account's SID, which begins with AC (an API key, SK..., is for apiKeySid)"
        )
    return text


def _base_url(text: str) -> str:
    # Paths are appended to it, and errors quote it.
    if set("@?#") & set(text):
        raise ValueError("must be a URL without user name, query and fragment")
    return text


def _voice(text: str) -> str:
    if not is_voice(text):
        raise ValueError("must be a voice with its vendor, such as Polly.Joanna-Neural")
    return text


def _language(text: str) -> str:
    if _LANGUAGE.fullmatch(text) is None:
        raise ValueError("must be a language with its region, such as en-GB")
    return text


class TwilioConfig(ConfigModel):
    """Calls through Twilio."""

    account_sid: Annotated[str, AfterValidator(_account_sid)] = Field(
        description="Account SID (`AC...`)", json_schema_extra={"pattern": f"^{_SID.pattern}$"}
    )
    auth_token: str = Field(
        min_length=1,
        repr=False,
        description="Auth token of the account in this region: signs the webhooks, and "
        "authenticates requests unless an API key is given",
    )
    api_key_sid: str | None = Field(
        default=None, description="API key (`SK...`) that requests use instead of the auth token"
    )
    api_key_secret: str | None = Field(
        default=None, repr=False, description="Secret of the API key `apiKeySid`"
    )
    webhooks_shared_key: str | None = Field(
        default=None,
        repr=False,
        description="Secret of the shared key with which Twilio signs webhooks (SHA-256)",
    )
    region: Literal["us1", "ie1", "au1"] | None = Field(
        default=None, description="Region of the account's calls; unset: us1"
    )
    edge: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9-]*$",
        description="Edge location through which requests enter Twilio, such as `ashburn`",
    )
    api_base_url: Annotated[HttpUrl, AfterValidator(_base_url)] | None = Field(
        default=None,
        description="URL of the API or an emulator; replaces the one given by region and edge",
    )
    calls_per_second: float = Field(
        default=1.0, gt=0, le=1000, description="Calls placed per second, as the account allows"
    )
    voice: Annotated[str, AfterValidator(_voice)] | None = Field(
        default=None, description="Voice of turn-based calls, such as `Polly.Joanna-Neural`"
    )
    language: Annotated[str, AfterValidator(_language)] | None = Field(
        default=None, description="Language of Twilio's voice and recogniser, such as `en-GB`"
    )

    @model_validator(mode="after")
    def _api_key_is_whole(self) -> TwilioConfig:
        if (self.api_key_sid is None) is not (self.api_key_secret is None):
            raise ValueError("apiKeySid and apiKeySecret go together")
        return self

    @property
    def base_url(self) -> str:
        """URL of the API, without a trailing slash."""
        if self.api_base_url is not None:
            return self.api_base_url.rstrip("/")
        region = self.region or "us1"
        edge = self.edge or _EDGES.get(region)
        return f"https://api.{edge}.{region}.twilio.com" if edge else "https://api.twilio.com"

    @property
    def credentials(self) -> tuple[str, str]:
        """User name and password of requests."""
        if self.api_key_sid is not None and self.api_key_secret is not None:
            return self.api_key_sid, self.api_key_secret
        return self.account_sid, self.auth_token
