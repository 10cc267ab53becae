"""Configuration files of OpenClaw, as they are: they load, the doctor brings old ones up to date,
and a mistake in one is named with its path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from voicecall.errors import ConfigError
from voicecall.registry import Registry
from voicecall_calls.config import CONFIG_PATH, VoiceCallConfig
from voicecall_calls.plugin import voicecall_plugin_info
from voicecall_calls.wiring import Wiring, resolve
from voicecall_gateway.cli import run
from voicecall_gateway.config import LoadedConfig, config_from_tree, load_config
from voicecall_gateway.jsonfile import parse_tree
from voicecall_gateway.pluginconfig import plugin_config, plugin_values

from .openclaw_files import CURRENT, ENVIRON, FILES, OLD

pytestmark = pytest.mark.integration

REGISTRY = Registry()


def phone(loaded: LoadedConfig) -> VoiceCallConfig:
    config: VoiceCallConfig = plugin_config(REGISTRY, loaded, "voice-call")
    return config


def warnings(loaded: LoadedConfig) -> list[str]:
    return [
        *loaded.warnings,
        *plugin_values(REGISTRY, loaded, voicecall_plugin_info()).warnings,
    ]


def wired(loaded: LoadedConfig) -> Wiring:
    return resolve(
        phone(loaded),
        registry=REGISTRY,
        environ=ENVIRON,
        agents=loaded.section("agents"),
        tts=loaded.section("tts"),
    )


def load(name: str) -> LoadedConfig:
    return config_from_tree(parse_tree(FILES[name], name), environ=ENVIRON, source=name)


def on_disk(folder: Path, name: str) -> Path:
    file = folder / "config.json5"
    file.write_text(FILES[name], encoding="utf-8")
    return file


@pytest.mark.parametrize("name", CURRENT)
def test_a_current_file_loads_without_a_warning(name: str, tmp_path: Path) -> None:
    loaded = load_config(on_disk(tmp_path, name), ENVIRON)
    assert warnings(loaded) == []
    assert phone(loaded).enabled


@pytest.mark.parametrize("name", OLD)
def test_an_old_file_loads_and_every_old_key_is_named(name: str) -> None:
    loaded = load(name)
    found = "\n".join(warnings(loaded))
    assert phone(loaded).provider == "mock"
    for key in ("streaming.openaiApiKey", "streaming.sttModel", "twilio.from"):
        assert f"{CONFIG_PATH}.{key}" in found


def test_values_under_old_keys_arrive_under_the_new_ones() -> None:
    loaded = load("april-trial")
    config = phone(loaded)
    assert config.from_number == "+15550001111"
    assert config.carriers["twilio"] == {"accountSid": "AC1", "authToken": "t"}
    assert config.streaming.provider == "openai-realtime"
    assert config.streaming.providers["openai"]["apiKey"] == "ears-key-value"
    assert config.streaming.providers["openai-realtime"] == {
        "model": "gpt-4o-transcribe",
        "silenceDurationMs": 700,
        "vadThreshold": 0.4,
    }
    assert config.tts.providers["elevenlabs"]["voiceId"] == "abc"
    assert loaded.section("tts")["auto"] == "always"
    assert loaded.section("tts")["providers"] == {"openai": {"voice": "alloy"}}
    assert "messages.tts" in "\n".join(loaded.warnings)


def test_a_number_that_is_there_wins_over_the_old_key() -> None:
    config = phone(load("april-short"))
    assert config.from_number == "+15550001111"
    # Nobody said whose model it is, but there is one vendor only.
    assert config.streaming.providers == {
        "openai": {"apiKey": "k", "model": "whisper-1", "vadThreshold": 0.5}
    }
    [route] = config.numbers.values()
    assert route.tts is not None
    assert route.tts.providers == {"openai": {"voice": "nova"}}


def test_foreign_sections_and_keys_are_noted_once() -> None:
    loaded = load("august-everything")
    [sections] = [note for note in loaded.notes if "sections" in note]
    for name in ("channels", "hooks", "meta", "models", "tools"):
        assert name in sections
    assert any("controlUi, mode, reload" in note for note in loaded.notes)
    assert any("plugins: keys" in note and "installs" in note for note in loaded.notes)


def test_everything_of_august_is_understood() -> None:
    loaded = load("august-everything")
    config = phone(loaded)
    assert loaded.gateway.auth.token == "gateway-token-value"
    assert config.carriers["twilio"]["authToken"] == "carrier-token-value"
    assert set(config.carriers) == {"twilio", "telnyx", "plivo"}
    assert config.session_scope == "per-call"
    assert config.realtime.consult_thinking_level == "low"
    assert config.realtime.fast_context.sources == ("memory", "sessions")
    assert config.realtime.agent_context.files[0] == "SOUL.md"
    assert config.realtime.tools[0].parameters.required == ("day",)
    assert config.tunnel.ngrok_domain == "phone.example.app"
    assert "tunnel-token" not in repr(config)
    assert config.webhook_security.trusted_proxy_ips == ("127.0.0.1",)
    assert config.numbers["+15550001111"].response_timeout_ms == 20_000


def test_what_is_not_installed_is_said_and_what_has_no_effect_named_once() -> None:
    wiring = wired(load("august-everything"))
    assert wiring.problems == []
    for carrier in ("plivo", "telnyx"):
        assert f"{CONFIG_PATH}.{carrier} is ignored" in "\n".join(wiring.notes)
    without = [note for note in wiring.notes if note.endswith("has no effect yet")]
    assert len(without) == len(set(without))
    assert f"{CONFIG_PATH}.tunnel.ngrokAuthToken has no effect yet" in without
    assert "realtime." not in "\n".join(without)
    assert "tailscale.port" not in "\n".join(without)


def test_keys_of_newer_files_are_taken_and_named() -> None:
    realtime = {"enabled": True, "idleHangupMs": 20_000}
    blocks = {"reports": {"enabled": True}, "voicemail": {"detection": "twilio"}}
    numbers = {"+15550001111": {"tts": {"persona": "Molly"}}}
    config = {"inboundPolicy": "open", "realtime": realtime, "numbers": numbers, **blocks}
    tree = {"plugins": {"entries": {"voice-call": {"config": config}}}}
    notes = wired(config_from_tree(tree, environ=ENVIRON)).notes
    assert f"{CONFIG_PATH}.realtime.idleHangupMs has no effect yet" not in notes
    assert f"{CONFIG_PATH}.numbers.+15550001111.tts.persona has no effect yet" in notes
    for block in blocks:
        assert f"{CONFIG_PATH}.{block} is ignored: this is not supported yet" in notes


def test_a_carrier_that_is_not_installed_is_a_problem() -> None:
    text = FILES["august-everything"].replace('provider: "twilio"', 'provider: "tin-can"')
    wiring = wired(config_from_tree(parse_tree(text, "x"), environ=ENVIRON, source="x"))
    assert any("tin-can" in problem for problem in wiring.problems)


def test_a_phone_of_the_mock_wants_no_tunnel() -> None:
    wiring = wired(load("august-funnel"))
    assert wiring.problems == []
    [note] = [note for note in wiring.notes if "tailscale.mode" in note]
    assert "no tunnel 'tailscale-funnel' is installed" in note
    assert wiring.config.media_path == "/voice/stream/realtime"


def test_old_keys_of_nobody_are_dropped_with_a_warning() -> None:
    streaming = {"sttModel": "m", "vadThreshold": 0.1, "silenceDurationMs": 5}
    config = {"streaming": streaming}
    tree = {"plugins": {"entries": {"voice-call": {"config": config}}}}
    loaded = config_from_tree(tree, environ={})
    assert phone(loaded) == VoiceCallConfig()
    assert sum("has no effect any more" in text for text in warnings(loaded)) == len(streaming)


# --- the doctor --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OLD)
def test_the_doctor_makes_an_old_file_load_without_warnings(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = on_disk(tmp_path, name)
    before = phone(load_config(file, ENVIRON))
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    environ = {**ENVIRON, "VOICECALL_CONFIG": str(file), "VOICECALL_STATE_DIR": str(state)}
    assert run(["doctor", "--json"], environ=environ, registry=Registry()) == 1
    capsys.readouterr()
    status = run(["doctor", "--fix", "--json"], environ=environ, registry=Registry())
    report = json.loads(capsys.readouterr().out)
    assert (status, report["issues"]) == (0, [])
    assert Path(report["backup"]).read_text(encoding="utf-8") == FILES[name]
    loaded = load_config(file, ENVIRON)
    assert warnings(loaded) == []
    assert phone(loaded) == before
    assert ("//" in file.read_text(encoding="utf-8")) == ("//" in FILES[name])


def test_the_doctor_finds_nothing_old_in_current_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = on_disk(tmp_path, "august-everything")
    file.chmod(0o600)
    environ = {**ENVIRON, "VOICECALL_STATE_DIR": str(tmp_path / "state")}
    status = run(["doctor", "--config", str(file)], environ=environ, registry=Registry())
    assert (status, file.read_text(encoding="utf-8")) == (0, FILES["august-everything"])
    assert "OK" in capsys.readouterr().out


# --- single mistakes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tailscale": {"mode": "funnel", "port": 444}}, r"config\.tailscale\.port: must be 443"),
        (
            {"tunnel": {"provider": "tailscale-funnel"}, "tailscale": {"port": 1}},
            r"config\.tailscale\.port: must be 443, 8443 or 10000",
        ),
        ({"tailscale": {"port": 0}}, r"config\.tailscale\.port"),
        ({"tunnel": {"provder": "ngrok"}}, r"config\.tunnel\.provder: unknown key; did you mean"),
        ({"realtime": {"fastContext": {"sources": []}}}, r"realtime\.fastContext\.sources"),
        ({"realtime": {"consultThinkingLevel": "much"}}, r"realtime\.consultThinkingLevel"),
        ({"realtime": {"idleHangupMs": 0}}, r"realtime\.idleHangupMs"),
        ({"realtime": {"tools": [{"type": "function"}]}}, r"realtime\.tools\.0\.name: is required"),
        ({"tts": {"auto": "sometimes"}}, r"config\.tts\.auto"),
        ({"tts": {"timeoutMs": 500}}, r"config\.tts\.timeoutMs"),
        ({"numbers": {"+15550001111": {"provider": "x"}}}, r"numbers\.\+15550001111\.provider"),
        ({"publicUrl": "phone.example.com"}, r"config\.publicUrl: must be an absolute"),
        ({"carriers": 5}, r"config\.carriers"),
    ],
)
def test_a_mistake_is_named_with_its_full_path(values: dict[str, Any], words: str) -> None:
    tree = {"plugins": {"entries": {"voice-call": {"config": values}}}}
    with pytest.raises(ConfigError, match=words):
        phone(config_from_tree(tree, environ={}))
