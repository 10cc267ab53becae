"""Which provider is used, and the error if none can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import field_validator

from voicecall import ProviderInfo, ProviderKind
from voicecall.configuring import ConfigModel
from voicecall.errors import ConfigError, PluginError
from voicecall.registry import Registry
from voicecall.selection import Selection, missing_fields, provider_config, select
from voicecall_testing.offering import offered

pytestmark = pytest.mark.unit

TTS = ProviderKind.TTS


class KeyConfig(ConfigModel):
    api_key: str
    voice: str = "anna"


def factory(config: object, context: object) -> object:
    return config


def provider(provider_id: str, **more: Any) -> ProviderInfo:
    values: dict[str, Any] = {
        "config_model": lambda: KeyConfig,
        "secrets": {"apiKey": f"{provider_id.upper()}_KEY"},
        "required": ("apiKey",),
        **more,
    }
    label = provider_id.capitalize()
    return ProviderInfo(kind=TTS, id=provider_id, label=label, factory=factory, **values)


def registry(*infos: ProviderInfo) -> Registry:
    return Registry(entries=[], extra=[offered(info) for info in infos])


ALPHA = provider("alpha", auto_select_order=10, aliases=("first",))
BRAVO = provider("bravo", auto_select_order=20)
DEMO = provider("demo", auto_select_order=1, demo=True, required=(), secrets={}, config_model=None)

Blocks = Mapping[str, Mapping[str, Any]]


@pytest.mark.parametrize(
    ("configured", "blocks", "environ", "chosen", "key"),
    [
        ("bravo", {"bravo": {"apiKey": "b"}}, {}, "bravo", "b"),
        ("bravo", {}, {"BRAVO_KEY": " b "}, "bravo", "b"),
        ("bravo", {"bravo": {"apiKey": "b"}}, {"BRAVO_KEY": "env"}, "bravo", "b"),
        ("first", {"alpha": {"apiKey": "a"}}, {}, "alpha", "a"),
        ("first", {"alpha": {"apiKey": "a"}, "first": {"apiKey": "f"}}, {}, "alpha", "f"),
        (None, {"alpha": {"apiKey": "a"}, "bravo": {"apiKey": "b"}}, {}, "alpha", "a"),
        (None, {"bravo": {"apiKey": "b"}}, {}, "bravo", "b"),
        (None, {"first": {"apiKey": "f"}, "bravo": {"apiKey": "b"}}, {}, "alpha", "f"),
        (None, {}, {"BRAVO_KEY": "b"}, "bravo", "b"),
        (None, {"alpha": {"apiKey": "${ALPHA_KEY}"}}, {"BRAVO_KEY": "b"}, "bravo", "b"),
    ],
)
def test_a_provider_is_chosen(
    configured: str | None, blocks: Blocks, environ: dict[str, str], chosen: str, key: str
) -> None:
    one = select(registry(DEMO, BRAVO, ALPHA), TTS, configured, blocks, environ, "tts")
    assert one.outcome is Selection.OK
    assert one.info is not None
    assert one.info.id == chosen
    assert one.config.api_key == key
    assert one.config.voice == "anna"


@pytest.mark.parametrize(
    ("blocks", "chosen"),
    [({}, "plain"), ({"bravo": {"apiKey": "b"}}, "bravo"), ({"bravo": {}}, "plain")],
)
def test_one_that_needs_nothing_comes_behind_those_that_are_configured(
    blocks: Blocks, chosen: str
) -> None:
    plain = provider("plain", auto_select_order=1, required=(), secrets={}, config_model=None)
    one = select(registry(plain, BRAVO), TTS, None, blocks, {}, "tts")
    assert one.info is not None
    assert one.info.id == chosen


def test_a_demo_provider_is_used_only_when_named() -> None:
    assert select(registry(DEMO), TTS, "demo", {}, {}, "tts").info is DEMO
    one = select(registry(DEMO), TTS, None, {}, {}, "tts")
    assert one.outcome is Selection.NO_REGISTERED_PROVIDER
    assert "no installed tts provider is chosen automatically" in one.message
    assert "name one (demo)" in one.message
    one = select(registry(DEMO), TTS, None, {}, {}, "tts.providers", named_at="tts.provider")
    assert one.message.endswith("name one in tts.provider (demo)")


def test_a_configured_provider_that_is_not_installed() -> None:
    one = select(registry(ALPHA), TTS, "alpa", {}, {}, "tts")
    assert one.outcome is Selection.MISSING_CONFIGURED_PROVIDER
    assert "did you mean 'alpha'" in one.message
    assert one.info is None


@pytest.mark.parametrize("configured", ["alpha", None])
@pytest.mark.parametrize("value", [None, "", "  ", "${ALPHA_KEY}", "sk-${ALPHA_KEY}", "${A}:${B}"])
def test_a_provider_without_its_key_names_path_and_variable(
    configured: str | None, value: str | None
) -> None:
    blocks = {"alpha": {"apiKey": value}} if value is not None else {}
    one = select(registry(ALPHA, BRAVO), TTS, configured, blocks, {}, "tts.providers")
    assert one.outcome is Selection.PROVIDER_NOT_CONFIGURED
    assert "tts.providers.alpha.apiKey (or set ALPHA_KEY)" in one.message
    assert one.config is None


@pytest.mark.parametrize("value", ["", "${GONE}", "sk-${GONE}"])
def test_a_key_without_a_value_is_not_replaced_by_the_variable(value: str) -> None:
    blocks = {"alpha": {"apiKey": value}}
    one = select(registry(ALPHA), TTS, "alpha", blocks, {"ALPHA_KEY": "a"}, "tts.providers")
    assert one.outcome is Selection.PROVIDER_NOT_CONFIGURED
    assert "tts.providers.alpha.apiKey (remove it to use ALPHA_KEY)" in one.message


@pytest.mark.parametrize(
    ("environ", "verb"), [({}, "or set"), ({"ALPHA_KEY": "a"}, "remove it to use")]
)
def test_a_key_with_something_else_than_a_variable(environ: dict[str, str], verb: str) -> None:
    one = select(registry(ALPHA), TTS, "alpha", {"alpha": {"apiKey": "${alpha-key}"}}, environ, "t")
    assert one.outcome is Selection.PROVIDER_NOT_CONFIGURED
    assert f"t.alpha.apiKey ({verb} ALPHA_KEY)" in one.message
    assert "alpha-key" not in one.message
    inside = {"alpha": {"apiKey": "sk-${alpha-key}"}}
    assert select(registry(ALPHA), TTS, "alpha", inside, environ, "t").outcome is Selection.OK


def test_a_wrong_block_is_an_error_with_its_path() -> None:
    blocks = {"alpha": {"apiKey": "secret-value", "voise": "x"}}
    with pytest.raises(
        ConfigError, match=r"tts\.alpha\.voise: unknown key; did you mean 'voice'"
    ) as caught:
        select(registry(ALPHA), TTS, "alpha", blocks, {}, "tts")
    assert "secret-value" not in str(caught.value)


@pytest.mark.parametrize("configured", ["alpha", "first", None])
@pytest.mark.parametrize("written", ["alpha", "first"])
def test_what_is_wrong_is_named_where_it_was_written(configured: str | None, written: str) -> None:
    alpha = registry(ALPHA)
    blocks = {written: {"apiKey": "a", "voise": "x"}}
    with pytest.raises(ConfigError, match=rf"tts\.{written}\.voise: unknown key"):
        select(alpha, TTS, configured, blocks, {}, "tts")
    one = select(alpha, TTS, configured, {written: {"voice": "x"}}, {}, "tts")
    assert one.message == f"Alpha is not configured: tts.{written}.apiKey (or set ALPHA_KEY)"


def test_provider_config_alone() -> None:
    assert provider_config(DEMO, {}, {}, "tts.demo") is None
    with pytest.raises(ConfigError, match=r"tts\.demo: Demo has no configuration"):
        provider_config(DEMO, {"x": 1}, {}, "tts.demo")
    with pytest.raises(ConfigError, match=r"a\.b\.apiKey: is required by Alpha") as caught:
        provider_config(ALPHA, {}, {}, "a.b")
    assert caught.value.path == "a.b.apiKey"
    assert caught.value.env == "ALPHA_KEY"
    assert missing_fields(ALPHA, {}, {"ALPHA_KEY": " "}) == ["apiKey"]


@pytest.mark.parametrize("model", [None, dict, {}])
def test_a_configuration_model_that_is_none_is_its_packages_fault(model: Any) -> None:
    words = "'alpha' cannot be used: TypeError: its config_model returns .*, not a pydantic model"
    with pytest.raises(PluginError, match=words):
        provider_config(provider("alpha", config_model=lambda: model), {}, {"ALPHA_KEY": "a"}, "p")


class FailingConfig(ConfigModel):
    api_key: str = ""

    @field_validator("api_key")
    @classmethod
    def _known(cls, value: str) -> str:
        return {"": value}[value]


def test_a_model_that_fails_is_its_packages_fault() -> None:
    alpha = provider("alpha", auto_select_order=10, config_model=lambda: FailingConfig)
    chosen = select(registry(alpha, BRAVO), TTS, None, {}, {"ALPHA_KEY": "a", "BRAVO_KEY": "b"}, "")
    assert chosen.info is BRAVO
    words = "the tts provider 'alpha' cannot be used: its configuration model fails with KeyError$"
    with pytest.raises(PluginError, match=words):
        provider_config(alpha, {}, {"ALPHA_KEY": "a"}, "p")


@pytest.mark.parametrize("error", [ModuleNotFoundError("No module named 'vendor'"), SystemExit(3)])
def test_a_provider_whose_code_is_broken_is_no_other_ones_trouble(error: BaseException) -> None:
    def broken() -> Any:
        raise error

    environ = {"ALPHA_KEY": "a", "BRAVO_KEY": "b"}
    alpha = provider("alpha", auto_select_order=10, config_model=broken)
    words = f"the tts provider 'alpha' cannot be used: {type(error).__name__}: {error}"
    both = registry(alpha, BRAVO)
    chosen = select(both, TTS, None, {}, environ, "tts")
    assert chosen.info is BRAVO
    named = select(both, TTS, "alpha", {}, environ, "tts")
    assert (named.outcome, named.message) == (Selection.MISSING_CONFIGURED_PROVIDER, words)
    alone = select(registry(alpha), TTS, None, {}, environ, "tts")
    assert (alone.outcome, alone.message) == (Selection.MISSING_CONFIGURED_PROVIDER, words)


@pytest.mark.parametrize(("key", "meant"), [("apiKye", True), ("api_key", True), ("voice", False)])
@pytest.mark.parametrize("configured", ["bravo", None])
def test_what_else_is_wrong_in_a_block_without_its_key_is_told_with_it(
    key: str, meant: bool, configured: str | None
) -> None:
    block = {key: "b", "voices": ["x"], "voice": 5}
    found = select(registry(BRAVO), TTS, configured, {"bravo": block}, {}, "tts")
    assert found.outcome is Selection.PROVIDER_NOT_CONFIGURED
    told, *more = found.message.split("; tts.")
    assert told.startswith("Bravo is not configured: tts.bravo.apiKey (or set BRAVO_KEY)")
    assert ("did you mean 'apiKey'" in told) is meant
    assert sorted(more) == [
        "bravo.voice: must be a string",
        "bravo.voices: unknown key; did you mean 'voice'?",
    ]


def test_a_model_that_is_broken_says_nothing_of_a_block_without_its_key() -> None:
    def broken() -> type[KeyConfig]:
        raise ModuleNotFoundError("vendor")

    lost = provider("lost", config_model=broken)
    found = select(registry(lost), TTS, "lost", {"lost": {"voice": "x"}}, {}, "tts")
    assert found.message == "Lost is not configured: tts.lost.apiKey (or set LOST_KEY)"


@pytest.mark.parametrize(("key", "meant"), [("apiKye", True), ("api_key", True), ("voice", False)])
@pytest.mark.parametrize("configured", ["bravo", None])
def test_a_misspelt_key_is_named_where_the_right_one_is_missing(
    key: str, meant: bool, configured: str | None
) -> None:
    found = select(registry(BRAVO), TTS, configured, {"bravo": {key: "b"}}, {}, "tts.providers")
    assert found.outcome is Selection.PROVIDER_NOT_CONFIGURED
    slip = f"; did you mean 'apiKey' by {key!r}?"
    assert found.message == (
        "Bravo is not configured: tts.providers.bravo.apiKey (or set BRAVO_KEY)"
        + (slip if meant else "")
    )
    with pytest.raises(ConfigError) as caught:
        provider_config(BRAVO, {key: "b"}, {}, "store")
    instead = " (or set BRAVO_KEY)"
    assert str(caught.value) == (
        "store.apiKey: is required by Bravo" + (slip if meant else "") + instead
    )
