"""Carriers that a town can have: emulator, phones, and the gateway's configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from voicecall.model import EndReason
from voicecall.tts import SpeechProvider
from voicecall_calls.service import PhoneService
from voicecall_mock.exchange import Exchange, ExchangeOptions
from voicecall_mock.exchange.options import PhoneOptions
from voicecall_testing.twilio import TwilioEmulator, TwilioOptions

__all__ = ["CARRIERS", "CLINIC", "Carrier", "Emulator"]

CLINIC = "+15550100000"
"""The number of the gateway."""

Emulator = Exchange | TwilioEmulator


@dataclass(frozen=True, slots=True)
class Carrier:
    """``make``: its emulator, with the phones' options and voice. ``config``: what the gateway is
    told of it. ``announced``: what an operator does at the carrier once the gateway is up.
    ``left``: the end reason of a call that the far side has hung up."""

    make: Callable[[PhoneOptions | None, SpeechProvider], Emulator]
    config: Callable[[Emulator], dict[str, Any]]
    announced: Callable[[Emulator, PhoneService], None]
    left: EndReason


def _mock(options: PhoneOptions | None, speech: SpeechProvider) -> Emulator:
    assert options is None or isinstance(options, ExchangeOptions)
    return Exchange(options or ExchangeOptions(answer_after_ms=50), speech=speech)


def _mock_config(emulator: Emulator) -> dict[str, Any]:
    assert isinstance(emulator, Exchange)
    return {
        "provider": "mock",
        "mock": {"apiBaseUrl": emulator.base_url, "authToken": emulator.options.auth_token},
    }


def _mock_announced(emulator: Emulator, service: PhoneService) -> None:
    """The gateway has told the exchange itself where inbound calls go."""
    assert isinstance(emulator, Exchange)
    assert emulator.inbound_webhook is not None


def _twilio(options: PhoneOptions | None, speech: SpeechProvider) -> Emulator:
    assert options is None or isinstance(options, TwilioOptions)
    ours = options or TwilioOptions(answer_after_ms=50, second_s=0.25)
    return TwilioEmulator(replace(ours, numbers=(CLINIC,), calls_per_second=1000.0), speech=speech)


def _twilio_config(emulator: Emulator) -> dict[str, Any]:
    assert isinstance(emulator, TwilioEmulator)
    return {
        "provider": "twilio",
        "fromNumber": CLINIC,
        "twilio": {
            "accountSid": emulator.options.account_sid,
            "authToken": emulator.options.auth_token,
            "apiBaseUrl": emulator.base_url,
            "callsPerSecond": 1000,
        },
    }


def _twilio_announced(emulator: Emulator, service: PhoneService) -> None:
    assert isinstance(emulator, TwilioEmulator)
    assert service.engine is not None
    urls: Mapping[str, str] = service.engine.provider.number_urls(service.engine.webhook_url())
    voice_url, status_callback = urls.values()
    emulator.set_voice_url(voice_url, status_callback=status_callback)


CARRIERS: Mapping[str, Carrier] = {
    "mock": Carrier(_mock, _mock_config, _mock_announced, EndReason.HANGUP_USER),
    # Twilio does not report who hung up.
    "twilio": Carrier(_twilio, _twilio_config, _twilio_announced, EndReason.COMPLETED),
}
