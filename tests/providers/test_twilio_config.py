"""The Twilio carrier's configuration block, and the URLs that operators enter at Twilio."""

from __future__ import annotations

import pytest

from voicecall.errors import ConfigError
from voicecall.providers import ProviderInfo, ProviderKind
from voicecall.registry import Registry
from voicecall.selection import provider_config
from voicecall_twilio.config import TwilioConfig

from .twilio_forms import AGAIN, HOOK, PROVIDER

pytestmark = pytest.mark.unit


def info() -> ProviderInfo:
    return Registry().load(ProviderKind.TELEPHONY, "twilio")


def test_number_urls_ask_for_redelivery() -> None:
    assert PROVIDER.number_urls(HOOK) == {
        "A call comes in": HOOK + AGAIN,
        "Call status changes": f"{HOOK}?type=status{AGAIN}",
    }


@pytest.mark.parametrize(
    ("block", "wanted"),
    [
        ({}, "https://api.twilio.com"),
        ({"region": "us1"}, "https://api.twilio.com"),
        ({"region": "ie1"}, "https://api.dublin.ie1.twilio.com"),
        ({"region": "au1"}, "https://api.sydney.au1.twilio.com"),
        ({"edge": "ashburn"}, "https://api.ashburn.us1.twilio.com"),
        ({"region": "ie1", "edge": "frankfurt"}, "https://api.frankfurt.ie1.twilio.com"),
        ({"apiBaseUrl": "http://127.0.0.1:9000/"}, "http://127.0.0.1:9000"),
    ],
)
def test_hosts_of_regions(block: dict[str, str], wanted: str) -> None:
    values = {"accountSid": "AC1", "authToken": "t", **block}
    assert TwilioConfig.model_validate(values).base_url == wanted


@pytest.mark.parametrize("language", ["de-DE", "es-419", "cmn-Hans-CN", "fil-PH"])
def test_languages_have_a_region(language: str) -> None:
    values = {"accountSid": "AC1", "authToken": "t", "language": language}
    assert TwilioConfig.model_validate(values).language == language


def test_secrets_stay_out_of_the_configurations_text() -> None:
    block = {
        "accountSid": "AC1",
        "authToken": "s3cret-1",
        "apiKeySid": "SK1",
        "apiKeySecret": "s3cret-2",
        "webhooksSharedKey": "s3cret-3",
    }
    config = TwilioConfig.model_validate(block)
    assert "s3cret" not in repr(config)
    assert config.credentials == ("SK1", "s3cret-2")


def test_credentials_come_from_the_environment() -> None:
    environ = {
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "token-1",
        "TWILIO_API_KEY": "SK1",
        "TWILIO_API_SECRET": "secret-1",
        "TWILIO_WEBHOOKS_SHARED_KEY": "shared-1",
    }
    config = provider_config(info(), {}, environ, "twilio")
    assert isinstance(config, TwilioConfig)
    assert config.credentials == ("SK1", "secret-1")
    assert (config.auth_token, config.webhooks_shared_key) == ("token-1", "shared-1")


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({}, "twilio.accountSid: .*TWILIO_ACCOUNT_SID"),
        ({"accountSid": "AC1"}, "twilio.authToken: .*TWILIO_AUTH_TOKEN"),
        ({"accountSid": "AC1", "authToken": "${NOT_SET}"}, "twilio.authToken"),
        (
            {"accountSid": "SK1", "authToken": "t"},
            r"twilio\.accountSid \(or TWILIO_ACCOUNT_SID\): must be the account's SID, which",
        ),
        ({"accountSid": "AC1\n", "authToken": "t"}, "twilio.accountSid"),
        ({"accountSid": "AC1/../x", "authToken": "t"}, "twilio.accountSid"),
        ({"accountSid": "AC1", "authToken": "t", "region": "us2"}, "twilio.region"),
        ({"accountSid": "AC1", "authToken": "t", "edge": "a.evil.example/"}, "twilio.edge"),
        ({"accountSid": "AC1", "authToken": "t", "apiBaseUrl": "ftp://x"}, "twilio.apiBaseUrl"),
        ({"accountSid": "AC1", "authToken": "t", "apiBaseUrl": "https://"}, "twilio.apiBaseUrl"),
        (
            {"accountSid": "AC1", "authToken": "t", "apiBaseUrl": "http://[::1:8"},
            "twilio.apiBaseUrl",
        ),
        (
            {"accountSid": "AC1", "authToken": "t", "apiBaseUrl": "http://h:port"},
            "twilio.apiBaseUrl",
        ),
        (
            {"accountSid": "AC1", "authToken": "t", "apiBaseUrl": "http://h:99999"},
            "twilio.apiBaseUrl",
        ),
        ({"accountSid": "AC1", "authToken": "t", "apiBaseUrl": "http://a b"}, "twilio.apiBaseUrl"),
        (
            {"accountSid": "AC1", "authToken": "t", "apiBaseUrl": "https://user:pass@h"},
            "twilio.apiBaseUrl: must be a URL without user name, query and fragment",
        ),
        (
            {"accountSid": "AC1", "authToken": "t", "apiBaseUrl": "https://h/?a=b"},
            "twilio.apiBaseUrl",
        ),
        (
            {"accountSid": "AC1", "authToken": "t", "apiBaseUrl": "https://h/#b"},
            "twilio.apiBaseUrl",
        ),
        ({"accountSid": "AC1", "authToken": "t", "callsPerSecond": 0}, "twilio.callsPerSecond"),
        ({"accountSid": "AC1", "authToken": "t", "apiKeySid": "SK1"}, "apiKeySecret go together"),
        ({"accountSid": "AC1", "authToken": "t", "regoin": "ie1"}, "did you mean 'region'"),
        *(
            ({"accountSid": "AC1", "authToken": "t", "voice": text}, "voice.*such as Polly")
            for text in ("", "Joanna", "alloy", "polly.Joanna", "Polly.")
        ),
        *(
            ({"accountSid": "AC1", "authToken": "t", "language": text}, "such as en-GB")
            for text in ("", "de", "German", "de_DE", "DE-de", "de-", "de-DE ")
        ),
    ],
)
def test_mistakes_are_named(block: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        provider_config(info(), block, {}, "twilio")


def test_the_old_key_of_the_number_is_declared() -> None:
    assert [(key.old, key.new) for key in info().legacy_keys] == [("twilio.from", "fromNumber")]
