"""What ``voicecall setup`` says about the phone, without contacting any service."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest

from voicecall import ProviderContext, ProviderInfo, ProviderKind
from voicecall.configuring import ConfigModel, validate
from voicecall.errors import PluginError
from voicecall.hosting import SetupCheck, SetupContext
from voicecall.providers import Remark
from voicecall.telephony import TelephonyCapabilities
from voicecall.tunnel import TunnelCapabilities
from voicecall_calls.checks import setup_checks
from voicecall_calls.config import VoiceCallConfig
from voicecall_testing.fakes import NATIVE, ScriptedCarrier

from .phone_registry import KEYS, info, registry

pytestmark = pytest.mark.unit

FREE_PORT = {"serve": {"port": 0}}
STATE = Path(gettempdir())
TRUSTING = {"trustForwardingHeaders": True, "trustedProxyIPs": ["127.0.0.1"]}
ORDER = ["plugin-enabled", "provider", "provider-config", "webhook-exposure", "mode", "agent"]


def checks(
    *,
    entry_enabled: bool = True,
    environ: Mapping[str, str] | None = None,
    agents: Mapping[str, Any] | None = None,
    gateway: Mapping[str, Any] | None = None,
    more: Sequence[ProviderInfo] = (),
    state_dir: Path = STATE,
    **config: Any,
) -> dict[str, SetupCheck]:
    sections = {"agents": agents or {}, "gateway": gateway or {}}
    context = SetupContext(
        registry=registry(more=more),
        plugin_config=lambda plugin: validate(VoiceCallConfig, {**FREE_PORT, **config}, "here"),
        section=lambda name: sections.get(name, {}),
        enabled=lambda plugin: entry_enabled,
        environ=environ or {},
        state_dir=state_dir,
    )
    return {check.id: check for check in setup_checks(context)}


def test_a_fresh_phone_is_ready_and_says_what_is_chosen_for_it() -> None:
    found = checks()
    assert list(found) == ORDER
    assert all(check.ok for check in found.values())
    assert "the default" in found["provider"].message
    assert "needs no public URL" in found["webhook-exposure"].message
    assert "agents.defaults.backend" in found["agent"].message
    assert "turn-based" in found["mode"].message


def test_an_agent_that_was_installed_answers_and_another_one_can_be_named() -> None:
    mine = info(ProviderKind.AGENT, "mine", auto_select_order=1)
    message = "agent main: Mine (set agents.defaults.backend for another one)"
    assert checks(more=[mine])["agent"] == SetupCheck("agent", True, message)


@pytest.mark.parametrize(
    ("entry", "config", "key"),
    [
        (False, {}, "plugins.entries.voice-call.enabled"),
        (False, {"enabled": False}, "plugins.entries.voice-call.enabled"),
        (True, {"enabled": False}, "plugins.entries.voice-call.config.enabled"),
    ],
)
def test_a_phone_that_is_off(entry: bool, config: dict[str, Any], key: str) -> None:
    check = checks(entry_enabled=entry, **config)["plugin-enabled"]
    assert not check.ok
    assert check.message == f"the phone is off; set {key} to true"


def test_what_is_passed_over_is_told() -> None:
    notes = checks(inbound={"policy": "open"}, recording={"enabled": True})["notes"]
    assert notes.ok
    for key in ("voice-call.config.inbound", "voice-call.config.recording"):
        assert f"{key} is ignored: no such carrier is installed" in notes.message
    assert "notes" not in checks(skipSignatureVerification=True)


def test_a_configuration_that_is_wrong_is_named() -> None:
    found = checks(maxConcurrentCall=2)
    assert list(found) == ["plugin-enabled", "provider-config"]
    assert not found["provider-config"].ok
    assert "did you mean 'maxConcurrentCalls'" in found["provider-config"].message


def test_everything_that_a_carrier_misses_is_named() -> None:
    found = checks(provider="public")
    assert not found["provider-config"].ok
    for word in ("public.apiKey", "PUBLIC_KEY"):
        assert word in found["provider-config"].message
    unknown = checks(provider="nobody")
    assert not unknown["provider"].ok
    # Nobody knows what that one needs.
    assert "webhook-exposure" not in unknown


@pytest.mark.parametrize(
    ("url", "ok", "word"),
    [
        (None, False, "set plugins.entries.voice-call.config.publicUrl, or open a tunnel"),
        ("http://127.0.0.1:3334", False, "cannot be reached from the internet"),
        ("https://10.0.0.1/hook", False, "plugins.entries.voice-call.config.publicUrl: https://10"),
        ("http://phone.example.com", False, "over https"),
        ("https://phone.example.com", True, "https://phone.example.com, whose path is not"),
        ("https://phone.example.com/voice", True, "serve.path, /voice/webhook: right only if the"),
        ("https://phone.example.com/voice/webhook/?a=1", True, "/voice/webhook/?a=1; they all"),
    ],
)
def test_a_real_carrier_must_reach_the_webhooks(url: str | None, ok: bool, word: str) -> None:
    config: dict[str, Any] = {
        "provider": "public",
        "public": {"apiKey": "k"},
        "fromNumber": "+15550000000",
        **({"publicUrl": url} if url else {}),
    }
    check = checks(**config)["webhook-exposure"]
    assert check.ok is ok
    assert word in check.message


def test_a_path_may_be_written_in_several_ways() -> None:
    phone: dict[str, Any] = {
        "provider": "public",
        "public": {"apiKey": "k"},
        "fromNumber": "+15550000000",
    }
    url = "https://phone.example.com/hook/"
    check = checks(**phone, publicUrl=url, serve={"port": 0, "path": "hook"})["webhook-exposure"]
    assert check.ok
    assert "whose path" not in check.message


def test_the_mode_names_the_providers_or_what_is_missing() -> None:
    on = checks(environ=KEYS, streaming={"enabled": True})["mode"]
    assert on.ok
    assert on.message == "streaming: heard by Ears, spoken by Voice"
    off = checks(streaming={"enabled": True})["mode"]
    assert not off.ok
    assert "EARS_KEY" in off.message
    # What the numbers' own settings miss is the same, and the rest is told elsewhere.
    numbers = {"+15550001111": {"tts": {"timeoutMs": 2000}}}
    more = checks(streaming={"enabled": True}, nobody={}, numbers=numbers)
    assert more["mode"].message == off.message
    assert "nobody is ignored" in more["notes"].message
    full = checks(environ=KEYS, realtime={"enabled": True})["mode"]
    assert full.ok
    assert "Full" in full.message


def test_a_carrier_that_is_emulated_is_told_from_one_that_needs_no_public_url() -> None:
    class Emulated(ConfigModel):
        api_base_url: str

    can = TelephonyCapabilities(native_speech=True, native_listening=True)
    real = info(ProviderKind.TELEPHONY, "real", capabilities=can)
    real = replace(real, config_model=lambda: Emulated)
    key = "plugins.entries.voice-call.config.publicUrl"
    for url, message in (
        ("http://127.0.0.1:1", "Real at apiBaseUrl, on this machine, needs no public URL"),
        (
            "https://api.example.com",
            f"the carrier cannot reach the webhooks: set {key}, or open a tunnel",
        ),
    ):
        block = {"apiBaseUrl": url}
        found = checks(more=[real], provider="real", fromNumber="+15550000000", real=block)
        assert found["webhook-exposure"].message == message


@pytest.mark.parametrize("public", [{}, {"publicUrl": "https://voice.example.com/hook"}])
def test_a_carrier_that_cannot_be_made_takes_no_other_check_with_it(public: dict[str, Any]) -> None:
    def missing(config: Any, context: ProviderContext) -> Any:
        raise ModuleNotFoundError("No module named 'vendor'")

    broken = info(ProviderKind.TELEPHONY, "broken", capabilities=NATIVE)
    found = checks(more=[replace(broken, factory=missing)], provider="broken", **public)
    assert [*ORDER, "carrier"] == list(found)
    assert not found["carrier"].ok
    assert (
        "the telephony provider 'broken' cannot be used: ModuleNotFoundError: No module named"
        in found["carrier"].message
    )


def test_a_carrier_that_does_not_tell_what_its_numbers_need_is_named() -> None:
    class Silent(ScriptedCarrier):
        def number_urls(self, webhook_url: str) -> Any:
            return None

    odd = info(ProviderKind.TELEPHONY, "odd", capabilities=NATIVE)
    silent = replace(odd, factory=lambda config, context: Silent(NATIVE))
    found = checks(more=[silent], provider="odd", publicUrl="https://voice.example.com/hook")
    assert "the telephony provider 'odd' cannot be used: TypeError" in found["carrier"].message


def test_the_voices_and_what_they_miss() -> None:
    spare = info(ProviderKind.TTS, "spare", key=True, auto_select_order=150)
    third = info(ProviderKind.TTS, "third", key=True, auto_select_order=160)
    on: dict[str, Any] = {"streaming": {"enabled": True}}
    both = {**KEYS, "SPARE_KEY": "k"}
    check = checks(environ=both, more=[spare, third], **on)["speech"]
    assert check.ok
    assert check.message.startswith("Voice speaks; if it fails, Spare; Third is not configured")
    assert "tts.providers.third.apiKey (or set THIRD_KEY)" in check.message
    without = {"EARS_KEY": "k", "SPARE_KEY": "k"}
    found = checks(environ=without, more=[spare], tts={"provider": "voice"}, **on)
    check = found["speech"]
    assert check.ok
    assert check.message.startswith("Spare speaks; WARNING: Voice is not configured")
    assert "VOICE_KEY" in check.message
    assert "notes" not in found
    alone = checks(environ=KEYS, **on)["speech"]
    assert alone.message == "Voice speaks"
    assert "speech" not in checks(environ=KEYS)


def test_what_only_a_speech_provider_knows_is_asked_of_it() -> None:
    def deaf(config: Any, models: Collection[str]) -> Sequence[str]:
        raise PluginError("words that are not in the dictionary: 'xyzzyx'")

    def mute(config: Any, models: Collection[str]) -> Sequence[str]:
        return [f"there is no voice {config.voice}"] if config.voice else []

    def broken(config: Any, models: Collection[str]) -> Sequence[str]:
        raise KeyError("library")

    more = (
        info(ProviderKind.TRANSCRIPTION, "deaf", check=deaf),
        info(ProviderKind.TTS, "mute", check=mute),
        info(ProviderKind.TTS, "spare", check=broken, auto_select_order=200),
    )
    streaming = {"enabled": True, "provider": "deaf"}
    tts = {"provider": "mute", "providers": {"mute": {"voice": "klingon"}}}
    found = checks(more=more, streaming=streaming, tts=tts)
    spare = (
        "WARNING: it cannot take over: Spare: the tts provider 'spare' cannot be used:"
        " KeyError: 'library'"
    )
    for name, text in (
        ("transcription", "Deaf: words that are not in the dictionary: 'xyzzyx'"),
        ("tts", f"Mute: there is no voice klingon; {spare}"),
    ):
        assert found[name] == SetupCheck(name, False, text)
    told = checks(environ=KEYS, more=more, streaming={"enabled": True}, tts={"provider": "mute"})
    assert "transcription" not in told
    assert told["tts"] == SetupCheck("tts", True, spare)
    # Providers that are not used are not asked.
    assert list(checks(more=more, tts=tts)) == ORDER


@pytest.mark.parametrize("answer", [None, "there is no voice"])
def test_a_speech_providers_check_that_returns_no_sequence_is_named(answer: Any) -> None:
    more = (info(ProviderKind.TTS, "mute", check=lambda config, models: answer),)
    on: dict[str, Any] = {"streaming": {"enabled": True}, "tts": {"provider": "mute"}}
    told = checks(environ=KEYS, more=more, **on)["tts"]
    assert not told.ok
    words = f"its check returns {type(answer).__name__}, not a sequence of strings"
    assert told.message == f"Mute: the tts provider 'mute' cannot be used: TypeError: {words}"


def test_the_agent_and_what_it_misses() -> None:
    missing = checks(agents={"defaults": {"backend": "model"}})["agent"]
    assert not missing.ok
    assert "MODEL_KEY" in missing.message
    chosen = checks(
        environ={"MODEL_KEY": "k"},
        agents={"defaults": {"backend": "model"}, "list": [{"id": "sales"}]},
    )["agent"]
    assert chosen.ok
    assert chosen.message == "agent sales: Model"


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (lambda config, models: None, "it returns NoneType, not a sequence of strings"),
        (lambda config, models: "a key", "it returns str, not a sequence of strings"),
        (lambda config: [], "TypeError: .*takes 1 positional argument"),
        (lambda config, models: sys.exit(3), "SystemExit: 3"),
    ],
)
def test_a_backends_check_that_is_broken_is_named(check: Any, words: str) -> None:
    more = (info(ProviderKind.AGENT, "clumsy", check=check),)
    found = checks(agents={"defaults": {"backend": "clumsy"}}, more=more)["agent"]
    assert not found.ok
    assert re.fullmatch(f"the check of the agent provider 'clumsy' fails: {words}.*", found.message)


def test_what_only_the_backend_knows_is_asked_of_it() -> None:
    asked: list[list[str]] = []

    def check(config: Any, models: Collection[str]) -> Sequence[str]:
        asked.append(list(models))
        return [f"the model {name!r} needs a key: set BIG_KEY" for name in models if "big" in name]

    def missing(config: Any, models: Collection[str]) -> Sequence[str]:
        raise PluginError("the agent keyed needs its extra")

    more = (
        info(ProviderKind.AGENT, "asked", check=check),
        info(ProviderKind.AGENT, "keyed", check=missing),
    )
    agents = {
        "defaults": {"backend": "asked", "model": "v/small"},
        "list": [
            {"id": "desk", "default": True},
            {"id": "sales", "model": "v/big"},
            {"id": "absent", "backend": "keyed"},
        ],
    }
    found = checks(agents=agents, more=more)
    assert found["agent"] == SetupCheck("agent", True, "agent desk: Asked")
    assert asked == [["v/small"], ["v/big"]]
    asked.clear()
    checks(agents=agents, more=more, responseModel="v/tiny")
    assert asked == [["v/tiny"], ["v/tiny"]]
    # An agent that answers a number is needed.
    numbers = {
        "+15550100021": {"agentId": "sales", "responseModel": "v/tiny"},
        "+15550100022": {"responseModel": "v/bigger"},
    }
    asked.clear()
    found = checks(agents=agents, more=more, numbers=numbers)
    assert asked == [["v/small", "v/bigger"], ["v/big", "v/tiny"]]
    for name in ("provider-config", "agent"):
        assert not found[name].ok
    assert found["provider-config"].message == (
        "the model 'v/bigger' needs a key: set BIG_KEY; the model 'v/big' needs a key: set BIG_KEY"
    )
    found = checks(agents=agents, more=more, agentId="absent")
    assert found["agent"] == SetupCheck("agent", False, "the agent keyed needs its extra")


def test_a_mistake_that_an_agent_works_in_spite_of_is_a_note() -> None:
    def check(config: Any, models: Collection[str]) -> Sequence[str]:
        return [Remark("{name} is spoken literally")]

    def check_voice(config: Any, models: Collection[str]) -> Sequence[str]:
        return [Remark("an old voice"), "no voice"] if config.voice else [Remark("an old voice")]

    more = (
        info(ProviderKind.AGENT, "asked", check=check),
        info(ProviderKind.TTS, "loud", check=check_voice),
    )
    agents = {
        "defaults": {"backend": "asked", "model": {"primary": "v/small", "fallbacks": ["v/big"]}},
        "list": [{"id": "desk"}, {"id": "sales"}],
    }
    found = checks(agents=agents, more=more)
    assert found["agent"].ok
    assert found["provider-config"].ok
    assert found["notes"] == SetupCheck("notes", True, "{name} is spoken literally")
    streaming: dict[str, Any] = {"streaming": {"enabled": True}, "environ": {"EARS_KEY": "k"}}
    tts: dict[str, Any] = {"provider": "loud"}
    assert checks(more=more, tts=tts, **streaming)["tts"] == SetupCheck(
        "tts", True, "WARNING: Loud: an old voice"
    )
    tts["providers"] = {"loud": {"voice": "x"}}
    assert checks(more=more, tts=tts, **streaming)["tts"] == SetupCheck(
        "tts", False, "WARNING: Loud: an old voice; Loud: no voice"
    )


@pytest.mark.parametrize(
    ("tools", "named"),
    [
        (lambda config: ["order", "calendar_*"], ["ordr", "calender_find", "cash_*"]),
        (lambda config: ["order", "c*", 1], ["ordr"]),
        (None, []),
        (lambda config: 1 / 0, []),
    ],
)
def test_allowed_tools_that_no_agent_has(tools: Any, named: list[str]) -> None:
    allow = ["order", "ordr", "cal*", "*", "calendar_find", "calender_find", "cash_*"]
    more = (info(ProviderKind.AGENT, "asked", tools=tools),)
    places: dict[str, dict[str, Any]] = {
        "agents.defaults": {"defaults": {"backend": "asked", "tools": {"allow": allow}}},
        "agents.list.1": {
            "defaults": {"backend": "asked"},
            "list": [{"id": "desk"}, {"id": "sales", "tools": {"allow": allow}}],
        },
    }
    for place, agents in places.items():
        found = checks(agents=agents, more=more)
        keys = [f"{place}.tools.allow.{allow.index(name)}: no tool is called" for name in named]
        assert ("notes" in found) is bool(keys)
        if keys:
            sentences = re.split("; (?=agents)", found["notes"].message)
            assert [text.partition(" '")[0] for text in sentences] == keys
            assert "'ordr'; did you mean 'order'?" in sentences[0]


def test_allowed_tools_that_another_agent_has() -> None:
    more = (
        info(ProviderKind.AGENT, "asked", tools=lambda config: ["order"]),
        info(ProviderKind.AGENT, "seller", tools=lambda config: ["sell"]),
        info(ProviderKind.AGENT, "silent"),
    )
    agents: dict[str, Any] = {
        "defaults": {"backend": "asked", "tools": {"allow": ["order", "sell", "cook"]}},
        "list": [{"id": "desk"}, {"id": "sales", "backend": "seller"}],
    }
    assert checks(agents=agents, more=more)["notes"].message == (
        "agents.defaults.tools.allow.2: no tool is called 'cook'"
    )
    agents["list"].append({"id": "else", "backend": "silent"})
    assert "notes" not in checks(agents=agents, more=more)


def test_what_several_models_lack_is_said_once() -> None:
    def check(config: Any, models: Collection[str]) -> Sequence[str]:
        return ["a key is needed: set BIG_KEY" for name in models]

    more = (info(ProviderKind.AGENT, "asked", check=check),)
    agents = {"defaults": {"backend": "asked", "model": "v/small"}}
    numbers = {"+15550100022": {"responseModel": "v/big"}}
    found = checks(agents=agents, more=more, numbers=numbers)
    for name in ("provider-config", "agent"):
        assert found[name].message == "a key is needed: set BIG_KEY"


def test_a_wrong_model_is_found_where_the_file_has_it() -> None:
    def check(config: Any, models: Collection[str]) -> Sequence[str]:
        return ["agents.backends.asked.model: Unknown provider: v"]

    class Asked(ConfigModel):
        model: str

    asked = info(ProviderKind.AGENT, "asked", check=check)
    more = (replace(asked, config_model=lambda: Asked, required=("model",)),)
    models: dict[str, dict[str, Any]] = {
        "agents.defaults.model": {"defaults": {"backend": "asked", "model": "v/small"}},
        "agents.defaults.model.primary": {
            "defaults": {
                "backend": "asked",
                "model": {"primary": "v/small", "fallbacks": ["v/big"]},
            },
        },
        "agents.backends.asked.model": {
            "defaults": {"backend": "asked", "model": "w/small"},
            "backends": {"asked": {"model": "v/small"}},
        },
    }
    for place, agents in models.items():
        found = checks(agents=agents, more=more)
        assert found["agent"].message == f"{place}: Unknown provider: v"
        assert "notes" not in found


def test_a_model_that_cannot_take_over_is_told_of_and_needed_by_nobody() -> None:
    def check(config: Any, models: Collection[str]) -> Sequence[str]:
        return [f"the model {name!r} needs a key" for name in models if "big" in name]

    model = {"primary": "v/small", "fallbacks": ["v/big", "v/tiny"]}
    more = (info(ProviderKind.AGENT, "asked", check=check),)
    found = checks(agents={"defaults": {"backend": "asked", "model": model}}, more=more)
    assert found["agent"].ok
    assert found["provider-config"].ok
    told = "a fallback model cannot be used: the model 'v/big' needs a key"
    assert told in found["notes"].message


@pytest.mark.parametrize("public", [True, False])
def test_a_tunnel_must_reach_the_carrier(public: bool) -> None:
    burrow = info(
        ProviderKind.TUNNEL, "burrow", capabilities=TunnelCapabilities(public=public), key=True
    )
    phone: dict[str, Any] = {
        "provider": "public",
        "public": {"apiKey": "k"},
        "fromNumber": "+15550000000",
    }
    keyed = {"provider": "burrow", "providers": {"burrow": {"apiKey": "k"}}}
    check = checks(more=[burrow], **phone, tunnel=keyed)["webhook-exposure"]
    assert check.ok is public
    assert "through the tunnel Burrow" in check.message or "its own network" in check.message
    bare = checks(more=[burrow], **phone, tunnel={"provider": "burrow"})
    assert not bare["webhook-exposure"].ok
    assert "tunnel.providers.burrow.apiKey (or set BURROW_KEY)" in bare["provider-config"].message


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, True),
        ({"webhookSecurity": {"trustForwardingHeaders": True}}, True),
        ({"webhookSecurity": {"trustedProxyIPs": ["127.0.0.1"]}}, True),
        ({"webhookSecurity": TRUSTING}, False),
        ({"webhookSecurity": {**TRUSTING, "trustedProxyIPs": ["10.0.0.1", "127.0.0.0/8"]}}, False),
        ({"webhookSecurity": {**TRUSTING, "trustedProxyIPs": ["10.0.0.1"]}}, True),
        ({"serve": {"port": 0, "bind": "0.0.0.0"}}, False),
    ],
)
@pytest.mark.parametrize("tunnelled", [True, False])
def test_limits_of_one_client_that_hold_for_everybody_are_told(
    tunnelled: bool, more: dict[str, Any], told: bool
) -> None:
    burrow = info(ProviderKind.TUNNEL, "burrow", capabilities=TunnelCapabilities())
    reached: dict[str, Any] = {"tunnel": {"provider": "burrow"}}
    if not tunnelled:
        reached = {"publicUrl": "https://phone.example.com"}
    phone: dict[str, Any] = {
        "provider": "public",
        "public": {"apiKey": "k"},
        "fromNumber": "+15550000000",
    }
    check = checks(more=[burrow], **phone, **reached, **more)["webhook-exposure"]
    assert check.ok
    assert ("webhookSecurity.trustForwardingHeaders" in check.message) is told


def test_no_check_shows_a_key() -> None:
    found = checks(provider="public", public={"apiKey": "very-secret"})
    assert "very-secret" not in repr(found)
    for block in ({"apiKey": "very-secret", "voice": 5}, {"apiKey": ["very-secret"]}):
        wrong = checks(provider="public", public=block)
        assert not wrong["provider-config"].ok
        assert "very-secret" not in repr(wrong)


def test_a_check_warns_of_unverified_webhooks() -> None:
    found = checks(skipSignatureVerification=True)
    assert list(found) == [*ORDER, "signatures"]
    assert "skipSignatureVerification is true" in found["signatures"].message


def test_a_place_where_no_call_can_be_stored(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    check = checks(state_dir=file)["store"]
    assert not check.ok
    assert f"stored in {file}/voice-calls: {file} is not a directory" in check.message
    assert "VOICECALL_STATE_DIR" in check.message
    check = checks(state_dir=tmp_path, store=str(file / "calls"))["store"]
    assert not check.ok
    assert "plugins.entries.voice-call.config.store" in check.message
    nobodys = checks(store="~no-such-user/calls")
    assert not nobodys["provider-config"].ok
    assert "store" not in nobodys
    assert "store" not in checks(state_dir=tmp_path / "not" / "there" / "yet")
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_of_the_store_that_cannot_be_used(tmp_path: Path) -> None:
    directory = tmp_path / "voice-calls"
    directory.mkdir()
    for name in ("lock", "calls.db"):
        (directory / name).touch()
    assert "store" not in checks(state_dir=tmp_path)
    (directory / "calls.db").unlink()
    # Whoever runs the tests, root included, cannot open what is not there.
    (directory / "calls.db").symlink_to(tmp_path / "gone" / "calls.db")
    check = checks(state_dir=tmp_path)["store"]
    assert not check.ok
    assert f"{directory}/calls.db cannot be read and written: give it to" in check.message
    (directory / "calls.db").unlink()
    (directory / "calls.jsonl").mkdir()
    check = checks(state_dir=tmp_path)["store"]
    assert not check.ok
    assert f"{directory}/calls.jsonl is not a file" in check.message


def test_a_file_of_another_user_is_no_place_for_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mode could not be set, whatever it is."""
    directory = tmp_path / "voice-calls"
    directory.mkdir()
    (directory / "calls.db").touch()
    owner = (directory / "calls.db").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    check = checks(state_dir=tmp_path)["store"]
    assert not check.ok
    assert f"{directory}/calls.db belongs to another user: give it to" in check.message
    postgres = {"provider": "postgres", "url": "postgresql://localhost/calls"}
    assert "store" not in checks(state_dir=tmp_path, store=postgres)


def test_the_key_of_another_user(tmp_path: Path) -> None:
    """As when root ran ``voicecall setup --probe`` before the first start."""
    file = tmp_path / "voice-calls" / "probe.key"
    file.parent.mkdir()
    assert "probe-key" not in checks(state_dir=tmp_path)
    file.touch()
    assert "probe-key" not in checks(state_dir=tmp_path)
    file.unlink()
    file.symlink_to(tmp_path / "gone")
    check = checks(state_dir=tmp_path)["probe-key"]
    assert not check.ok
    assert f"{file} cannot be read: delete it, or give it to the gateway's user" in check.message


def test_a_database_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "voice-calls" / "calls.db"
    file.parent.mkdir()
    file.write_text("no database at all", encoding="utf-8")
    before = file.stat()
    check = checks(state_dir=tmp_path)["store"]
    assert not check.ok
    assert f"{file} is not an SQLite database: restore a backup or move it away" in check.message
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert list(file.parent.iterdir()) == [file]


def test_the_database_of_a_gateway_that_runs(tmp_path: Path) -> None:
    file = tmp_path / "voice-calls" / "calls.db"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as running:
        running.execute("PRAGMA journal_mode = WAL")
        running.execute("CREATE TABLE calls (id)")
        running.execute("BEGIN IMMEDIATE")
        there = sorted(file.parent.iterdir())
        assert "store" not in checks(state_dir=tmp_path)
        assert sorted(file.parent.iterdir()) == there
        running.execute("INSERT INTO calls VALUES (1)")
        running.execute("COMMIT")


def test_a_port_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr("voicecall_calls.checks._LOOK_S", 0.1)
        for bind in ("127.0.0.1", "0.0.0.0"):
            taken = checks(serve={"port": port, "bind": bind})["listening"]
            assert not taken.ok
            assert taken.message == (
                f"plugins.entries.voice-call.config.serve.port: port {port} of {bind} is in use by"
                " another program: stop it or choose another port"
            )
    assert "listening" not in checks(serve={"port": port})
    for bind in ("203.0.113.9", "no such host"):
        check = checks(serve={"port": 0, "bind": bind})["listening"]
        assert not check.ok
        assert f"serve.bind: cannot listen on port 0 of {bind}: " in check.message


@pytest.mark.parametrize(
    ("gateway", "serve", "clash"),
    [
        ({}, {"port": 18790}, True),
        ({"port": 4000, "bind": "0.0.0.0"}, {"port": 4000}, True),
        ({"port": 4000, "bind": "loopback"}, {"port": 4000}, True),
        ({"port": 0}, {"port": 0}, False),
        ({"port": "${PORT}"}, {"port": 18790, "bind": "203.0.113.9"}, False),
        ({}, {"port": 18790, "bind": "203.0.113.9"}, False),
        ({"port": 4000, "bind": "127.0.0.2"}, {"port": 4000, "bind": "203.0.113.9"}, False),
    ],
)
def test_the_gateways_own_port(gateway: dict[str, Any], serve: dict[str, Any], clash: bool) -> None:
    check = checks(gateway=gateway, serve=serve).get("listening")
    assert (check is not None and "is gateway.port too" in check.message) is clash
    assert check is None or not check.ok


def test_a_block_that_is_wrong_is_told_with_all_that_does_not_depend_on_it(tmp_path: Path) -> None:
    class Block(ConfigModel):
        rate: int = 1

    def wrong(kind: ProviderKind, provider_id: str, **more: Any) -> ProviderInfo:
        return replace(info(kind, provider_id, **more), config_model=lambda: Block)

    (tmp_path / "voice-calls").write_text("", encoding="utf-8")
    found = checks(
        more=[
            wrong(ProviderKind.TELEPHONY, "line", capabilities=NATIVE),
            wrong(ProviderKind.TRANSCRIPTION, "ear"),
            wrong(ProviderKind.TTS, "mouth"),
            wrong(ProviderKind.AGENT, "head"),
        ],
        state_dir=tmp_path,
        provider="line",
        line={"rate": "fast"},
        streaming={"enabled": True, "provider": "ear", "providers": {"ear": {"rate": "fast"}}},
        tts={"provider": "mouth", "providers": {"mouth": {"rate": "fast"}}},
        agents={"defaults": {"backend": "head"}, "backends": {"head": {"rate": "fast"}}},
    )
    assert list(found) == ["plugin-enabled", "provider-config", "mode", "agent", "store"]
    assert [check.id for check in found.values() if check.ok] == ["plugin-enabled"]
    for path in ("line", "streaming.providers.ear", "tts.providers.mouth", "agents.backends.head"):
        assert f"{path}.rate: must be a whole number" in found["provider-config"].message
    assert "provider-config" in found["mode"].message
    assert "is not a directory" in found["store"].message


def test_an_agents_workspace_that_cannot_be_read_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.mkdir()
    (here / "SOUL.md").write_text("You like tea.")
    listed = [{"id": "a"}, {"id": "b", "workspace": str(here)}]
    agents = {"defaults": {"workspace": str(gone)}, "list": listed}

    def noted(**context: Any) -> str:
        realtime = {"enabled": True, "agentContext": {"enabled": True, **context}}
        found = checks(environ=KEYS, agents=agents, realtime=realtime, inboundPolicy="open")
        assert all(check.ok for check in found.values())
        return found["notes"].message if "notes" in found else ""

    missing = f"agents.defaults.workspace: {gone} is not a directory: create it, or name another"
    assert noted() == missing
    for place in (here / "SOUL.md", here):
        monkeypatch.setattr(os, "access", lambda path, mode, shut=place: Path(path) != shut)
        assert noted() == (
            f"{missing}; agents.list.1.workspace: {place} cannot be read: give it to the gateway's"
            " user (chown)"
        )
    # Nothing reads it.
    assert noted(enabled=False) == noted(includeWorkspaceFiles=False) == ""
    assert "notes" not in checks(environ=KEYS, agents=agents)
