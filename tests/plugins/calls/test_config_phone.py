"""The phone's configuration: defaults, numbers, closed objects, blocks of carriers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall.configuring import validate
from voicecall.errors import ConfigError
from voicecall_calls.config import VoiceCallConfig, normalize_number

pytestmark = pytest.mark.unit


def config(**values: Any) -> VoiceCallConfig:
    return validate(VoiceCallConfig, values, "here")


def test_defaults() -> None:
    it = config()
    assert it.provider == "mock"
    assert it.inbound_policy == "disabled"
    assert it.outbound.default_mode == "notify"
    assert it.session_scope == "per-phone"
    assert (it.serve.port, it.serve.bind, it.serve.path) == (3334, "127.0.0.1", "/voice/webhook")
    assert it.streaming.stream_path == "/voice/stream"
    assert (it.max_concurrent_calls, it.max_concurrent_inbound_calls) == (1, 32)
    assert (it.webhook_security.max_in_flight_per_client, it.webhook_security.max_in_flight) == (
        8,
        64,
    )
    assert it.response_timeout_ms == it.ring_timeout_ms == 30_000
    assert it.transcript_timeout_ms == 180_000
    assert it.silence_timeout_ms == 800
    assert it.tts.timeout_ms == 8000


def test_the_policy_of_the_state_machine() -> None:
    policy = config(
        maxDurationSeconds=60,
        ringTimeoutMs=20_000,
        staleCallReaperSeconds=0,
        outbound={"notifyHangupDelaySec": 5},
    ).policy()
    assert policy.max_duration_ms == 60_000
    assert policy.ring_timeout_ms == 20_000
    assert policy.unanswered_ms == 0
    assert policy.notify_hangup_delay_ms == 5000
    assert config().policy().unanswered_ms == 120_000
    assert config().policy().quiet_ms == 60_000


def test_a_quiet_call_is_asked_about_before_it_is_too_long() -> None:
    assert config(maxDurationSeconds=30).policy().quiet_ms == 15_000


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("+15550001234", "+15550001234"),
        ("+1 (555) 000-1234", "+15550001234"),
        ("0049 30 1234567", "+49301234567"),
        ("+1.555.000.1234", "+15550001234"),
        ("15550001234", None),
        ("+05550001234", None),
        ("+1", None),
        ("+1234567890123456", None),
        ("+1555abc", None),
        ("", None),
    ],
)
def test_numbers(text: str, number: str | None) -> None:
    assert normalize_number(text) == number


@given(st.text(alphabet="+0123456789 ()-./x", max_size=20))
def test_a_normal_number_stays_as_it_is(text: str) -> None:
    number = normalize_number(text)
    if number is not None:
        assert normalize_number(number) == number
        assert number[1:].isdigit()
        assert 2 <= len(number[1:]) <= 15


@pytest.mark.parametrize("bind", ["::1", "fe80::1%eth0", "0.0.0.0", "localhost", "voice_gateway"])
def test_the_server_listens_on_an_address_or_a_name(bind: str) -> None:
    assert config(serve={"bind": f" {bind} "}).serve.bind == bind


def test_hosts_may_be_names_and_addresses_with_or_without_a_port() -> None:
    hosts = ("voice.example.com", "Voice.example.com:8443", "198.51.100.7", "[2001:db8::1]:8443")
    assert config(webhookSecurity={"allowedHosts": hosts}).webhook_security.allowed_hosts == hosts


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fromNumber": "12"}, r"here\.fromNumber.*E\.164"),
        ({"allowFrom": ["+15550001234", "x"]}, r"here\.allowFrom\.1"),
        ({"inboundPolicy": "friends"}, r"here\.inboundPolicy"),
        ({"outbound": {"defaultMode": "chat"}}, r"here\.outbound\.defaultMode"),
        ({"outbound": {"allowTo": ["+1555*", "1555*"]}}, r"here\.outbound\.allowTo\.1: .*\+1555\*"),
        ({"outbound": {"allowTo": ["+*"]}}, r"here\.outbound\.allowTo\.0"),
        (
            {"toNumber": "+15550001234", "outbound": {"allowTo": ["+1666*"]}},
            r"here\.toNumber: is not allowed by outbound\.allowTo",
        ),
        ({"maxConcurrentCalls": 0}, r"here\.maxConcurrentCalls"),
        ({"serve": {"port": 70_000}}, r"here\.serve\.port"),
        ({"serve": {"bind": "[::1]"}}, r"here\.serve\.bind: must be .*, without brackets"),
        ({"serve": {"bind": "127.0.0.1:3334"}}, r"here\.serve\.bind: must be .* and port"),
        ({"serve": {"bind": " "}}, r"here\.serve\.bind: must be an IP address or a host name"),
        ({"tts": {"timeoutMs": 10}}, r"here\.tts\.timeoutMs"),
        ({"publicUrl": "phone.example.com"}, "absolute http"),
        ({"publicUrl": "https://phone example.com/x"}, "absolute http"),
        ({"publicUrl": "https://phone.example.com/x#rc=3"}, r"publicUrl: must not contain #"),
        (
            {"publicUrl": "https://phone.example.com/x?a&callId=1"},
            "must not have a parameter callId",
        ),
        ({"publicUrl": "https://phone.example.com/x?a=b&type="}, r"publicUrl: .* parameter type"),
        ({"publicUrl": "https://phone.example.com/x "}, r"publicUrl: must be .*, without blanks"),
        ({"publicUrl": "https://phone.example.com/a b"}, r"publicUrl: must be .*, without blanks"),
        ({"serve": {"path": "https://x.example/y"}}, r"serve\.path: must be the path of a URL"),
        ({"serve": {"path": "/a?b"}}, r"serve\.path: must be the path of a URL"),
        ({"serve": {"path": "//a"}}, r"serve\.path: must be the path of a URL"),
        ({"serve": {"path": ""}}, r"serve\.path: must be the path of a URL"),
        ({"streaming": {"streamPath": "/a b"}}, r"streaming\.streamPath: must be the path"),
        ({"realtime": {"streamPath": "/a#b"}}, r"realtime\.streamPath: must be the path"),
        ({"webhookSecurity": {"allowedHosts": ["https://x"]}}, r"allowedHosts\.0: must be a host"),
        ({"webhookSecurity": {"allowedHosts": ["a_b.org"]}}, r"allowedHosts\.0: must be a host"),
        ({"webhookSecurity": {"allowedHosts": ["[:::]"]}}, r"allowedHosts\.0: must be a host"),
        ({"webhookSecurity": {"allowedHosts": ["[1.2.3.4]"]}}, r"allowedHosts\.0: must be a host"),
        ({"phrases": {"pairing": "Ask the owner."}}, r"phrases\.pairing: must contain \{code\}"),
        ({"phrases": {"goodbye": ""}}, r"here\.phrases\.goodbye: must not be empty"),
        ({"phrases": {"stillThere": "  "}}, r"here\.phrases\.stillThere: must not be empty"),
        ({"phrases": {"refused": " "}}, r"here\.phrases\.refused: must not be empty"),
        (
            {"numbers": {"+1 555 010 0021": {}, "0015550100021": {}}},
            r"numbers: names one number twice, as \+1 555 010 0021 and as 0015550100021",
        ),
        ({"retention": {"calls": 10**12}}, r"retention\.calls: must be at most 1000000000"),
        ({"provider": "twilio", "twilio": 5}, r"here\.twilio: must be an object"),
        ({"provider": "twilio", "twilio": None}, r"here\.twilio: must be an object"),
        ({"mock": []}, r"here\.mock: must be an object"),
        ({"webhookSecurity": {"trustedProxyIPs": ["proxy.local"]}}, r"trustedProxyIPs\.0.*CIDR"),
        (
            {"streaming": {"enabled": True}, "realtime": {"enabled": True}},
            r"realtime\.enabled: cannot be true if streaming\.enabled is",
        ),
        (
            {"streaming": {"streamPath": "/voice/webhook"}},
            r"streaming\.streamPath and serve\.path must differ",
        ),
        (
            {"serve": {"path": "/voice/stream"}},
            r"here: streaming\.streamPath and serve\.path must differ",
        ),
        (
            {"realtime": {"streamPath": "/voice/webhook"}},
            r"realtime\.streamPath and serve\.path must differ",
        ),
        ({"agentId": " "}, "agentId: must be the id of an agent"),
        ({"carriers": "mock"}, "carriers: must be an object"),
        ({"bargeIn": {"minSpeech": 3}}, r"here\.bargeIn\.minSpeech.*did you mean"),
        ({"inboundPolcy": "open"}, "did you mean 'inboundPolicy'"),
        ({"streming": {"enabled": True}}, "did you mean 'streaming'"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(**values)


def test_a_phrase_that_may_be_left_out_has_words_or_none() -> None:
    assert config(phrases={"filler": "  "}).phrases.filler == ""
    assert config(inboundGreeting=" ").inbound_greeting == ""


@pytest.mark.parametrize(
    ("webhooks", "media"),
    [
        ("/voice/webhook", "/voice/stream/realtime"),
        ("/voice/webhook/", "/voice/stream/realtime"),
        ("/webhook", "/stream/realtime"),
        ("/api/calls", "/api/calls/stream/realtime"),
        ("/", "/voice/stream/realtime"),
    ],
)
def test_the_path_of_a_voice_model_follows_from_that_of_the_webhooks(
    webhooks: str, media: str
) -> None:
    it = config(serve={"path": webhooks}, realtime={"enabled": True})
    assert it.media_path == media


def test_which_numbers_may_be_called() -> None:
    number = "+15550001234"
    assert config().outbound.allows(number)
    for allowed in ([number], ["+666", "001 555 *"], ["+1*"], ["+1555000123*"]):
        assert config(outbound={"allowTo": allowed}).outbound.allows(number)
    for others in ([], ["+1555000123"], ["+2*"], ["+15550001235*"]):
        assert not config(outbound={"allowTo": others}).outbound.allows(number)


def test_blocks_of_carriers_are_kept_for_the_carriers() -> None:
    block = {"authToken": "secret", "nested": {"flag": False, "count": 0}}
    it = config(mycarrier=block, maxDurationSeconds=5)
    assert it.carriers == {"mycarrier": block}
    assert it.max_duration_seconds == 5
    assert "secret" not in it.model_dump_json()


def test_the_chosen_carrier_may_have_a_name_like_a_key() -> None:
    block = {"authToken": "secret"}
    assert config(provider="public", public=block).carriers == {"public": block}
    with pytest.raises(ConfigError, match="did you mean 'publicUrl'"):
        config(public=block)


def test_explicit_falsy_values_count() -> None:
    it = config(
        fillerAfterMs=0,
        staleCallReaperSeconds=0,
        silence={"promptAfterMs": 0, "prompts": 0},
        bargeIn={"enabled": False, "minSpeechMs": 0},
        outbound={"notifyHangupDelaySec": 0},
        serve={"port": 0},
    )
    assert (it.filler_after_ms, it.stale_call_reaper_seconds) == (0, 0)
    assert (it.silence.prompt_after_ms, it.silence.prompts) == (0, 0)
    assert (it.barge_in.enabled, it.barge_in.min_speech_ms) == (False, 0)
    assert (it.outbound.notify_hangup_delay_sec, it.serve.port) == (0, 0)
