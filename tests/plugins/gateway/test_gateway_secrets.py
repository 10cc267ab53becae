"""References to secrets: every source, its checks, and what happens when one fails."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from voicecall import ProviderInfo, ProviderKind, hookimpl
from voicecall.configuring import ConfigModel
from voicecall.errors import ConfigError
from voicecall.hosting import PluginInfo
from voicecall.registry import Registry
from voicecall.selection import Selection, select
from voicecall_gateway.config import LoadedConfig, config_from_tree
from voicecall_gateway.logs import Mask
from voicecall_gateway.pluginconfig import plugin_config, plugin_values
from voicecall_gateway.secretrefs import UNAVAILABLE
from voicecall_testing.offering import offered

pytestmark = [pytest.mark.integration]

SECRET = "hush-hush-4711"


class PhoneConfig(ConfigModel):
    name: str = ""
    words: tuple[str, ...] = ()
    provider: str | None = None
    tts: dict[str, Any] = Field(default_factory=dict)
    carriers: dict[str, Any] = Field(default_factory=dict)


class Phone:
    @hookimpl
    def voicecall_plugin_info(self) -> PluginInfo:
        return PluginInfo(
            "p", "Phone", lambda: PhoneConfig, provider_blocks={"carriers": ProviderKind.TELEPHONY}
        )


class VoiceConfig(ConfigModel):
    api_key: str


VOICE = ProviderInfo(
    kind=ProviderKind.TTS,
    id="v",
    label="Voice",
    factory=lambda config, context: None,
    config_model=lambda: VoiceConfig,
    secrets={"apiKey": "VOICE_KEY"},
    required=("apiKey",),
)
REGISTRY_EXTRA: list[tuple[str, str, object]] = [
    ("voicecall.gateway", "p", Phone()),
    offered(VOICE),
]


def load(
    config: dict[str, Any], secrets: dict[str, Any] | None = None, **environ: str
) -> LoadedConfig:
    tree = {"plugins": {"entries": {"p": {"config": config}}}, "secrets": secrets or {}}
    return config_from_tree(tree, environ=environ, source="c")


def config_of(loaded: LoadedConfig) -> Any:
    return plugin_config(Registry(entries=[], extra=REGISTRY_EXTRA), loaded, "p")


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps({"a": {"b/c": SECRET, "~d": "tilde"}, "n": 5, "l": ["x", "y"]}))
    file.chmod(0o600)
    return file


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes a program out of shell lines and returns its provider."""

    def make(body: str, **options: Any) -> dict[str, Any]:
        file = tmp_path / "ask"
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o700)
        return {"source": "exec", "command": str(file), "timeoutMs": 5000, **options}

    return make


def ref(source: str, secret_id: str, provider: str = "s") -> dict[str, str]:
    return {"source": source, "provider": provider, "id": secret_id}


def failure(loaded: LoadedConfig) -> str:
    """Why the configuration of the plugin cannot be used."""
    with pytest.raises(ConfigError) as caught:
        config_of(loaded)
    assert SECRET not in str(caught.value)
    return str(caught.value)


# --- env --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["$NAME", "${NAME}", {"source": "env", "id": "NAME"}, ref("env", "NAME", "default")]
)
def test_forms_of_a_variable(value: Any) -> None:
    assert config_of(load({"name": value}, NAME=SECRET)).name == SECRET


def test_references_stand_anywhere_and_are_not_followed_twice() -> None:
    loaded = load({"words": ["$ONE", "a $ONE", "$one", "${TWO}"]}, ONE="1", TWO="$ONE")
    assert config_of(loaded).words == ("1", "a $ONE", "$one", "$ONE")


def test_a_variable_outside_of_the_allow_list() -> None:
    section = {"providers": {"s": {"source": "env", "allowlist": ["A"]}}}
    assert config_of(load({"name": ref("env", "A")}, section, A="x")).name == "x"
    text = failure(load({"name": ref("env", "B")}, section, B="x"))
    assert text.endswith(".name: B is not in secrets.providers.s.allowlist")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ref("env", "NAME", "other"), "secrets.providers.other is not configured"),
        (ref("env", "GONE", "default"), "the environment variable GONE is not set"),
        ("$GONE", "the environment variable GONE is not set"),
        ("$EMPTY", "the environment variable EMPTY is blank"),
        (ref("env", "BLANK", "default"), "the environment variable BLANK is blank"),
        (ref("env", "lower", "default"), "the reference's id must be the name of a variable"),
        (ref("env", "NAME", "Bad!"), "the reference's provider must be a name"),
        (ref("store", "NAME"), "use 'env', 'file' or 'exec'"),
        (ref("Env", "NAME"), "the reference's source must be 'env', 'file' or 'exec'"),
        ({**ref("env", "NAME"), "source": ["env"]}, "the reference's source must be 'env'"),
        (ref("file", "a/b"), "must be a JSON pointer"),
        (ref("exec", "a/../b"), "without . and .."),
        ("secretref-env:NAME", 'write "${NAME}"'),
    ],
)
def test_references_that_cannot_be_followed(value: Any, expected: str) -> None:
    assert expected in failure(load({"name": value}, NAME="x", EMPTY="", BLANK=" "))


# --- file -------------------------------------------------------------------------------------


def test_values_in_a_json_file(secret_file: Path) -> None:
    section = {"providers": {"s": {"source": "file", "path": str(secret_file)}}}
    words = [ref("file", "/a/b~1c"), ref("file", "/a/~0d"), ref("file", "/l/1")]
    assert config_of(load({"words": words}, section)).words == (SECRET, "tilde", "y")
    for pointer, expected in (
        ("/a/none", "has nothing at /a/none"),
        ("/n", "has no non-empty string at /n"),
        ("/l/7", "has nothing at /l/7"),
        ("value", "must be a JSON pointer"),
    ):
        assert expected in failure(load({"name": ref("file", pointer)}, section))


def test_a_file_with_a_single_value(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    provider = {"source": "file", "path": "~/token", "mode": "singleValue"}
    section = {"providers": {"s": provider}, "defaults": {"file": "s"}}
    loaded = load({"name": {"source": "file", "id": "value"}}, section, HOME=str(tmp_path))
    assert config_of(loaded).name == SECRET
    text = failure(load({"name": ref("file", "/a")}, section, HOME=str(tmp_path)))
    assert "must be 'value'" in text


@pytest.mark.parametrize(
    ("mode", "word"), [(0o620, "written by others"), (0o604, "read by others")]
)
def test_a_file_that_others_can_use(secret_file: Path, mode: int, word: str) -> None:
    secret_file.chmod(mode)
    section = {"providers": {"s": {"source": "file", "path": str(secret_file)}}}
    assert word in failure(load({"name": ref("file", "/a/b~1c")}, section))
    lenient = {"source": "file", "path": str(secret_file), "allowInsecurePath": True}
    loaded = load({"name": ref("file", "/a/b~1c")}, {"providers": {"s": lenient}})
    if mode == 0o604:
        assert config_of(loaded).name == SECRET
    else:
        assert word in failure(loaded)


def test_files_that_cannot_be_used(tmp_path: Path, secret_file: Path) -> None:
    def reason(path: Path | str, **options: Any) -> str:
        provider = {"source": "file", "path": str(path), **options}
        return failure(load({"name": ref("file", "/x")}, {"providers": {"s": provider}}))

    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "binary").chmod(0o600)
    assert "cannot be read" in reason(tmp_path / "none")
    assert "is not a regular file" in reason(tmp_path / "pipe")
    assert "Is a directory" in reason(tmp_path)
    assert "must be an absolute path" in reason("relative")
    assert "is not UTF-8" in reason(tmp_path / "binary")
    assert "is larger than 3 bytes" in reason(secret_file, maxBytes=3)
    secret_file.write_text(SECRET)
    assert "is not valid JSON" in reason(secret_file)


# --- exec -------------------------------------------------------------------------------------


def test_a_program_is_asked_once_for_everything(
    program: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    answer = {"protocolVersion": 1, "values": {"a#1": SECRET, "b": "two"}}
    log = tmp_path / "asked"
    provider = program(
        f"cat >> {log}; echo $EXTRA-$PASSED-$HIDDEN >> {log}; echo '{json.dumps(answer)}'",
        env={"EXTRA": "extra"},
        passEnv=["PASSED", "PATH"],
        trustedDirs=[str(tmp_path)],
    )
    words = [ref("exec", "a#1"), ref("exec", "b"), ref("exec", "a#1")]
    loaded = load(
        {"words": words},
        {"providers": {"s": provider}},
        PASSED="passed",
        HIDDEN="hidden",
        PATH="/usr/bin:/bin",
    )
    assert config_of(loaded).words == (SECRET, "two", SECRET)
    assert config_of(loaded).words[1] == "two"
    asked = json.dumps({"protocolVersion": 1, "provider": "s", "ids": ["a#1", "b"]})
    assert log.read_text() == f"{asked}extra-passed-\n"


@pytest.mark.parametrize(
    ("body", "options", "expected"),
    [
        ("echo nonsense", {}, "did not answer with JSON of protocol 1"),
        ('echo \'{"protocolVersion":2,"values":{}}\'', {}, "protocol 1"),
        (
            'echo \'{"protocolVersion":1,"values":{"x":5}}\'',
            {},
            "returns no non-empty string for x",
        ),
        (
            'echo \'{"protocolVersion":1,"errors":{"x":{"code":"NOT_FOUND"}}}\'',
            {},
            "answers NOT_FOUND for x",
        ),
        (f'echo \'{{"protocolVersion":1,"errors":{{"x":"{SECRET}"}}}}\'', {}, "an error for x"),
        (f"echo {SECRET} >&2; exit 3", {}, "failed with status 3"),
        ("exec sleep 60", {"timeoutMs": 50}, "did not answer in time"),
        ("exec sleep 60", {"noOutputTimeoutMs": 50}, "did not answer in time"),
        ("exec >&-; exec sleep 60", {"timeoutMs": 300}, "did not end in time"),
        ("while :; do echo 0123456789; done", {"maxOutputBytes": 100}, "more than 100 bytes"),
        (":", {"jsonOnly": False}, "wrote nothing"),
        (":", {"trustedDirs": ["/usr"]}, "is outside of trustedDirs"),
        (":", {"command": "relative"}, "must be an absolute path"),
        (":", {"command": "/no/such/program"}, "cannot be used"),
    ],
)
def test_programs_that_fail(
    program: Callable[..., dict[str, Any]], body: str, options: dict[str, Any], expected: str
) -> None:
    provider = program(body, **{"passEnv": ["PATH"], **options})
    loaded = load({"name": ref("exec", "x")}, {"providers": {"s": provider}}, PATH=os.defpath)
    assert expected in failure(loaded)


def test_a_program_that_answers_with_the_bare_value(
    program: Callable[..., dict[str, Any]],
) -> None:
    provider = program(f"echo {SECRET}", jsonOnly=False)
    loaded = load({"name": ref("exec", "x")}, {"providers": {"s": provider}})
    assert config_of(loaded).name == SECRET


def test_programs_that_others_could_change(
    program: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    provider = program("echo x", jsonOnly=False)
    link = tmp_path / "link"
    link.symlink_to(provider["command"])
    linked = {"providers": {"s": {**provider, "command": str(link)}}}
    assert "is a symbolic link" in failure(load({"name": ref("exec", "x")}, linked))
    Path(provider["command"]).chmod(0o722)
    own = {"providers": {"s": provider}}
    assert "can be changed by others" in failure(load({"name": ref("exec", "x")}, own))
    Path(provider["command"]).chmod(0o600)
    assert "is not a program" in failure(load({"name": ref("exec", "x")}, own))


def test_a_program_of_a_plugin_that_is_off_is_not_run(
    program: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    provider = program(f"touch {tmp_path}/ran")
    tree = {
        "secrets": {"providers": {"s": provider}},
        "plugins": {"entries": {"p": {"enabled": False, "config": {"name": ref("exec", "x")}}}},
    }
    loaded = config_from_tree(tree, environ={})
    assert not loaded.enabled("p")
    assert loaded.warnings == ()
    assert not (tmp_path / "ran").exists()


# --- what a failure means ---------------------------------------------------------------------


def test_a_provider_whose_secret_fails_counts_as_not_configured() -> None:
    blocks = {"v": {"apiKey": ref("env", "GONE", "default")}}
    loaded = load({"tts": {"providers": blocks}})
    values = config_of(loaded).tts["providers"]
    assert values["v"]["apiKey"] == UNAVAILABLE
    registry = Registry(entries=[], extra=REGISTRY_EXTRA)
    path = "plugins.entries.p.config.tts.providers"
    for chosen in ("v", None):
        found = select(registry, ProviderKind.TTS, chosen, values, {"VOICE_KEY": "k"}, path)
        assert found.outcome is Selection.PROVIDER_NOT_CONFIGURED
        sentence = loaded.secrets.explain(found.message)
        assert sentence.endswith(f"({path}.v.apiKey: the environment variable GONE is not set)")
    short = loaded.secrets.explain("Voice needs tts.providers.v.apiKey.")
    assert "GONE is not set" in short
    assert loaded.secrets.explain("see tts.providers.v.apiKeys") == "see tts.providers.v.apiKeys"
    info = Phone().voicecall_plugin_info()
    assert plugin_values(registry, loaded, info).warnings == (
        f"c: {path}.v.apiKey: the environment variable GONE is not set",
    )


def test_a_name_that_is_not_a_variables_is_told_where_it_stands() -> None:
    loaded = load({"name": "${my_name}", "words": ["$${my_name}"]}, my_name="x")
    config = config_of(loaded)
    assert (config.name, config.words) == ("${my_name}", ("${my_name}",))
    path = "plugins.entries.p.config.name"
    registry = Registry(entries=[], extra=REGISTRY_EXTRA)
    [warning] = plugin_values(registry, loaded, Phone().voicecall_plugin_info()).warnings
    assert warning.startswith(f"c: {path}: the name in ${{...}} must consist of upper-case letters")
    assert "upper-case" in loaded.secrets.explain("name: must be a URL")


def test_blocks_that_the_plugin_declares_are_lenient() -> None:
    loaded = load({"carriers": {"x": {"authToken": "$GONE"}}})
    assert config_of(loaded).carriers["x"]["authToken"] == UNAVAILABLE


def test_sections_that_plugins_read_have_their_secrets(secret_file: Path) -> None:
    tree = {
        "secrets": {"providers": {"s": {"source": "file", "path": str(secret_file)}}},
        "tts": {"providers": {"v": {"apiKey": ref("file", "/a/b~1c")}, "w": {"apiKey": "$GONE"}}},
    }
    loaded = config_from_tree(tree, environ={})
    section = loaded.section("tts")["providers"]
    assert (section["v"]["apiKey"], section["w"]["apiKey"]) == (SECRET, UNAVAILABLE)
    assert loaded.secrets.reference_warnings("tts") == [
        "tts.providers.w.apiKey: the environment variable GONE is not set"
    ]


def test_the_gateways_token_fails_closed(secret_file: Path) -> None:
    def tree(pointer: str) -> dict[str, Any]:
        return {
            "secrets": {"providers": {"s": {"source": "file", "path": str(secret_file)}}},
            "gateway": {"auth": {"token": ref("file", pointer)}},
        }

    assert config_from_tree(tree("/a/b~1c"), environ={}).gateway.auth.token == SECRET
    with pytest.raises(ConfigError, match=r"gateway\.auth\.token: .* has nothing at /none"):
        config_from_tree(tree("/none"), environ={"VOICECALL_GATEWAY_TOKEN": "another"})


# --- privacy ----------------------------------------------------------------------------------


def test_secrets_are_hidden(secret_file: Path) -> None:
    section = {"providers": {"s": {"source": "file", "path": str(secret_file)}}}
    loaded = load({"name": ref("file", "/a/b~1c"), SECRET: 1}, section)
    mask = Mask()
    loaded.secrets.on_found(mask.add)
    assert "***: unknown key" in failure(loaded)
    assert mask(f"it is {SECRET}.") == "it is ***."
    assert SECRET not in repr(loaded)
    assert SECRET not in repr(
        plugin_values(
            Registry(entries=[], extra=REGISTRY_EXTRA), loaded, Phone().voicecall_plugin_info()
        )
    )
    late = Mask()
    loaded.secrets.on_found(late.add)
    assert late(SECRET) == "***"


def test_secrets_are_hidden_without_the_blanks_around_them() -> None:
    loaded = load({"carriers": {"x": {"authToken": f" {SECRET}\n"}}})
    config_of(loaded)
    assert loaded.secrets.explain(f"wrong: {SECRET!r}") == "wrong: '***'"


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"providers": {"s": {"source": "store"}}}, "secrets.providers.s"),
        ({"providers": {"s": {"source": "file"}}}, "is required"),
        ({"providers": {"s": {"source": "exec", "command": "/x", "argz": []}}}, "argz"),
        ({"defaults": {"fil": "x"}}, "did you mean 'file'?"),
    ],
)
def test_a_section_that_is_wrong(section: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, section)
    assert expected in str(caught.value)
