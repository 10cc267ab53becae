"""The JSON schema of a configuration: it accepts what the gateway accepts, and refuses typos."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from voicecall import ProviderInfo, ProviderKind, hookimpl
from voicecall.configuring import ConfigModel
from voicecall.hosting import PluginInfo
from voicecall.registry import Registry
from voicecall.telephony import TelephonyCapabilities
from voicecall_gateway.cli import run
from voicecall_gateway.schema import configuration_schema
from voicecall_testing.offering import offered

pytestmark = pytest.mark.unit

# It comes without types.
Draft202012Validator: Any = importlib.import_module("jsonschema").Draft202012Validator


class Inner(ConfigModel):
    providers: dict[str, Any] = {}  # noqa: RUF012 (pydantic copies it)
    max_calls: int = 3


class PhoneConfig(ConfigModel):
    streaming: Inner = Inner()
    words: tuple[Inner, ...] = ()


class Voice(ConfigModel):
    api_key: str
    speed: float = 1


def voice(kind: ProviderKind) -> ProviderInfo:
    return ProviderInfo(
        kind=kind,
        id="v",
        label="Voice",
        factory=lambda config, context: None,
        config_model=lambda: Voice,
        required=("apiKey",),
        secrets={"apiKey": "VOICE_KEY"},
        capabilities=TelephonyCapabilities() if kind is ProviderKind.TELEPHONY else None,
    )


class Phone:
    @hookimpl
    def voicecall_plugin_info(self) -> PluginInfo:
        blocks = {"": ProviderKind.TELEPHONY, "streaming.providers": ProviderKind.TTS}
        return PluginInfo("p", "Phone", lambda: PhoneConfig, provider_blocks=blocks)


def registry() -> Registry:
    return Registry(
        entries=[],
        extra=[
            ("voicecall.gateway", "p", Phone()),
            ("voicecall.gateway", "broken", offered(voice(ProviderKind.TTS))[2]),
            offered(voice(ProviderKind.TTS)),
            ("voicecall.tts", "empty", Phone()),
            offered(voice(ProviderKind.TELEPHONY)),
        ],
    )


def errors(tree: dict[str, Any]) -> list[str]:
    """Paths at which the schema refuses ``tree``."""
    document, _ = configuration_schema(registry())
    Draft202012Validator.check_schema(document)
    found = Draft202012Validator(document).iter_errors(tree)
    return sorted(".".join(str(part) for part in error.absolute_path) for error in found)


def phone(config: dict[str, Any]) -> dict[str, Any]:
    return {"plugins": {"entries": {"p": {"config": config}}}}


REFERENCE = {"source": "file", "provider": "s", "id": "/a"}


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"channels": {"x": 1}, "gateway": {"controlUi": {}, "auth": {"token": REFERENCE}}},
        {"gateway": {"auth": {"token": "t", "allowTailscale": True}}},
        {"secrets": {"providers": {"s": {"source": "file", "path": "/x"}}}},
        {"tts": {"provider": "v", "providers": {"v": {"speed": 2}, "other": {"x": 1}}}},
        phone({"streaming": {"maxCalls": 1, "providers": {"v": {"apiKey": REFERENCE}}}}),
        phone({"v": {"apiKey": "k"}, "words": [{"maxCalls": 2}]}),
        {"plugins": {"entries": {"p": {"enabled": False, "hooks": {}}, "unknown": {"x": 1}}}},
    ],
)
def test_accepts(tree: dict[str, Any]) -> None:
    assert errors(tree) == []


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        ({"gateway": {"prot": 1}}, "gateway"),
        ({"gateway": {"port": "x"}}, "gateway.port"),
        ({"tts": {"providers": {"v": {"sped": 2}}}}, "tts.providers.v"),
        (phone({"streaming": {"maxCals": 1}}), "plugins.entries.p.config.streaming"),
        (phone({"v": {"speed": "x"}}), "plugins.entries.p.config.v.speed"),
        (phone({"words": [{"x": 2}]}), "plugins.entries.p.config.words.0"),
        (
            phone({"streaming": {"providers": {"v": {"apiKey": 5}}}}),
            "plugins.entries.p.config.streaming.providers.v.apiKey",
        ),
        ({"secrets": {"providers": {"s": {"source": "file"}}}}, "secrets.providers.s"),
    ],
)
def test_refuses(tree: dict[str, Any], path: str) -> None:
    assert errors(tree) == [path]


@pytest.mark.parametrize(
    ("tree", "environ", "warnings"),
    [
        ({}, {}, []),
        ({"tts": {"providers": {"v": {"apiKey": "k", "speed": "2"}, "other": 1}}}, {}, []),
        # Without its credential it is not configured.
        ({"tts": {"providers": {"v": {"sped": 2}}}}, {}, []),
        (
            {"tts": {"providers": {"v": {"sped": 2}}}},
            {"VOICE_KEY": "k"},
            ["tts.providers.v.sped: unknown key; did you mean 'speed'?"],
        ),
        (
            phone({"streaming": {"providers": {"v": {"apiKey": "hush-hush", "speed": True}}}}),
            {},
            ["plugins.entries.p.config.streaming.providers.v.speed: must be a number"],
        ),
    ],
)
def test_config_check_warns_of_wrong_blocks(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tree: dict[str, Any],
    environ: dict[str, str],
    warnings: list[str],
) -> None:
    file = tmp_path / "config.json5"
    file.write_text(json.dumps(tree))
    assert run(["config", "check", "--json", "--config", str(file)], registry(), environ) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["warnings"] == [f"{file}: {text}" for text in warnings]


def test_config_check_warns_of_blocks_with_misspelt_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = replace(voice(ProviderKind.TTS), id="speaker", aliases=("speakers",))
    installed = Registry(entries=[], extra=[("voicecall.gateway", "p", Phone()), offered(info)])
    blocks: dict[str, Any] = {"providers": {"speeker": {}, "speakers": {}, "elsewhere": {}}}
    file = tmp_path / "config.json5"
    file.write_text(json.dumps({"tts": blocks, **phone({"streaming": blocks})}))
    assert run(["config", "check", "--json", "--config", str(file)], installed, {}) == 0
    wrong = (
        "speeker: no tts provider of this name is installed; the block is ignored;"
        " did you mean 'speaker'?"
    )
    assert json.loads(capsys.readouterr().out)["warnings"] == [
        f"{file}: tts.providers.{wrong}",
        f"{file}: plugins.entries.p.config.streaming.providers.{wrong}",
    ]


def test_a_model_may_stand_elsewhere() -> None:
    class Mind(ConfigModel):
        model: str
        mood: str

    info = ProviderInfo(
        kind=ProviderKind.AGENT,
        id="v",
        label="Mind",
        factory=lambda config, context: None,
        config_model=lambda: Mind,
        required=("model", "mood"),
    )

    schema, problems = configuration_schema(Registry(entries=[], extra=[offered(info)]))
    assert problems == []
    assert schema["$defs"]["agent.v"]["required"] == ["mood"]


def test_providers_that_take_nothing_or_cannot_tell_what() -> None:
    def lost() -> type[ConfigModel]:
        raise LookupError("gone")

    plain = replace(voice(ProviderKind.TTS), id="plain", config_model=None)
    infos = [plain, replace(plain, id="lost", config_model=lost)]
    schema, problems = configuration_schema(Registry(entries=[], extra=map(offered, infos)))
    assert schema["$defs"]["tts.plain"]["maxProperties"] == 0
    assert schema["$defs"]["tts.lost"] == {"type": "object"}
    assert problems == ["tts.lost: LookupError: gone"]


def test_the_command_prints_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema", "--json"], registry(), {}) == 0
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert document == configuration_schema(registry())[0]
    assert document["$defs"]["tts.v"]["required"] == []
    assert "offers no provider with this id" in output.err
    assert "calls itself" not in output.out
