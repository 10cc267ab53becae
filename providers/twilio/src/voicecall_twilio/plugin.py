"""Entry point of the Twilio carrier. Importing it needs no HTTP client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from voicecall import ProviderContext, ProviderInfo, ProviderKind, hookimpl
from voicecall.providers import LegacyKey
from voicecall.telephony import StreamPoint, TelephonyCapabilities

if TYPE_CHECKING:
    from pydantic import BaseModel

LONGEST_DIGITS = 32
"""Most characters of ``SendDigits``."""
CAPABILITIES = TelephonyCapabilities(
    native_speech=True,
    native_listening=True,
    stream=frozenset({StreamPoint.DOCUMENT, StreamPoint.COMMAND}),
    dtmf_out=True,
    pre_connect_dtmf=True,
    longest_pre_connect_dtmf=LONGEST_DIGITS,
    dial_lookup=True,
    limit_by_command=True,
    # A document in a request may have 4,000 characters, markup and URLs included.
    longest_speech=2500,
)


def _config_model() -> type[BaseModel]:
    from .config import TwilioConfig

    return TwilioConfig


def _factory(config: Any, context: ProviderContext) -> Any:
    from .provider import TwilioProvider

    return TwilioProvider(config, context)


@hookimpl
def voicecall_telephony_providers() -> Sequence[ProviderInfo]:
    return [
        ProviderInfo(
            kind=ProviderKind.TELEPHONY,
            id="twilio",
            label="Twilio",
            factory=_factory,
            config_model=_config_model,
            secrets={
                "accountSid": "TWILIO_ACCOUNT_SID",
                "authToken": "TWILIO_AUTH_TOKEN",
                "apiKeySid": "TWILIO_API_KEY",
                "apiKeySecret": "TWILIO_API_SECRET",
                "webhooksSharedKey": "TWILIO_WEBHOOKS_SHARED_KEY",
            },
            required=("accountSid", "authToken"),
            environ={"fromNumber": "TWILIO_FROM_NUMBER"},
            capabilities=CAPABILITIES,
            legacy_keys=(LegacyKey("twilio.from", "fromNumber"),),
        )
    ]
