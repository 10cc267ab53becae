"""Old configuration keys are found, moved and explained; a value under the new key wins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall import LegacyKey, ProviderInfo, ProviderKind, hookimpl
from voicecall.errors import ConfigError
from voicecall.hosting import LegacyRule
from voicecall.registry import Registry
from voicecall.telephony import TelephonyCapabilities
from voicecall_calls import plugin as phone
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.legacy import CORE_RULES, apply_rules
from voicecall_gateway.pluginconfig import plugin_config, plugin_values
from voicecall_testing.offering import offered

pytestmark = pytest.mark.unit


def carrier(provider_id: str, *keys: LegacyKey) -> tuple[str, object]:
    """A carrier with its own old keys."""
    info = ProviderInfo(
        kind=ProviderKind.TELEPHONY,
        id=provider_id,
        label="Carrier",
        factory=lambda config, context: None,
        capabilities=TelephonyCapabilities(),
        legacy_keys=keys,
    )
    return offered(info)[1:]


class Broken:
    @hookimpl
    def voicecall_telephony_providers(self) -> Sequence[ProviderInfo]:
        raise RuntimeError("oops")


def config_of(config: dict[str, Any], *carriers: tuple[str, object]) -> tuple[Any, list[str]]:
    """The phone's configuration and what is said about its old keys."""
    extra = [("voicecall.gateway", phone.PLUGIN_ID, phone)]
    registry = Registry(
        entries=[], extra=[*extra, *(("voicecall.telephony", i, m) for i, m in carriers)]
    )
    tree = {"plugins": {"entries": {phone.PLUGIN_ID: {"config": config}}}}
    loaded = config_from_tree(tree, environ={}, source="c")
    checked = plugin_config(registry, loaded, phone.PLUGIN_ID)
    values = plugin_values(registry, loaded, phone.voicecall_plugin_info())
    return checked, [
        text.replace("plugins.entries.voice-call.config.", "") for text in values.warnings
    ]


# --- the gateway's own ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"messages": {"tts": {"provider": "x"}, "y": 1}},
            {"tts": {"provider": "x"}, "messages": {"y": 1}},
        ),
        ({"tts": {"enabled": True}}, {"tts": {"auto": "always"}}),
        ({"tts": {"enabled": False, "auto": "inbound"}}, {"tts": {"auto": "inbound"}}),
        ({"tts": {"edge": {"voice": "a"}}}, {"tts": {"providers": {"microsoft": {"voice": "a"}}}}),
        (
            {"tts": {"some": {"a": 1, "b": 1}, "providers": {"some": {"b": 2}}}},
            {"tts": {"providers": {"some": {"a": 1, "b": 2}}}},
        ),
        (
            {"messages": {"tts": {"some": {"a": 1}}}, "tts": {"provider": "some"}},
            {"messages": {}, "tts": {"provider": "some", "providers": {"some": {"a": 1}}}},
        ),
        ({"tts": {"personas": {"x": {}}, "modelOverrides": {}, "maxTextLength": 5}}, None),
        ({"tts": "espresso"}, None),
        ({"messages": {"tts": "x"}}, None),
        ({"tts": {"enabled": "yes"}}, None),
        ({"tts": {"some": {"a": 1}, "providers": "x"}}, None),
    ],
)
def test_sections(old: dict[str, Any], new: dict[str, Any] | None) -> None:
    before = repr(old)
    changed, changes = apply_rules(old, CORE_RULES)
    assert changed == (old if new is None else new)
    assert bool(changes) is (new is not None)
    assert repr(old) == before


def test_a_warning_names_the_old_key_and_the_new_one() -> None:
    loaded = config_from_tree({"messages": {"tts": {"provider": "x"}}}, environ={}, source="c")
    assert loaded.section("tts") == {"provider": "x"}
    assert loaded.warnings == ("c: messages.tts is an old key: write tts instead",)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=3),
        lambda inner: st.dictionaries(
            st.sampled_from(["tts", "messages", "enabled", "auto", "edge", "providers", "a.b"]),
            inner,
            max_size=3,
        ),
        max_leaves=8,
    )
)
def test_any_tree_settles(value: Any) -> None:
    tree = value if isinstance(value, dict) else {"tts": value}
    once, _ = apply_rules(tree, CORE_RULES)
    again, changes = apply_rules(once, CORE_RULES)
    assert (again, changes) == (once, [])


# --- the phone's ------------------------------------------------------------------------------


def test_the_phones_old_keys() -> None:
    config, warnings = config_of(
        {
            "provider": "log",
            "some": {"from": "+15550001111", "sid": "x"},
            "streaming": {
                "sttProvider": "vend",
                "vendApiKey": "k-secret-k",
                "sttModel": "m",
                "vadThreshold": 0.5,
                "silenceDurationMs": math.inf,
            },
            "tts": {"loud": {"voice": "v"}, "enabled": True},
        }
    )
    assert (config.provider, config.from_number) == ("mock", "+15550001111")
    assert config.carriers == {"some": {"sid": "x"}}
    assert config.streaming.provider == "vend"
    assert config.streaming.providers == {
        "vend": {"apiKey": "k-secret-k", "model": "m", "vadThreshold": 0.5}
    }
    assert config.tts.providers == {"loud": {"voice": "v"}}
    assert warnings == [
        "c: provider has an old value: write 'mock'",
        "c: some.from is an old key: write fromNumber instead",
        "c: streaming.sttProvider is an old key: write streaming.provider instead",
        "c: streaming.vendApiKey is an old key: write streaming.providers.vend.apiKey instead",
        "c: streaming.sttModel is an old key: write streaming.providers.vend.model instead",
        "c: streaming.silenceDurationMs is ignored (not a finite number): remove it",
        (
            "c: streaming.vadThreshold is an old key: write"
            " streaming.providers.vend.vadThreshold instead"
        ),
        "c: tts.enabled has no effect any more: remove it",
        "c: tts.loud is an old key: write tts.providers.loud instead",
    ]


def test_new_keys_win() -> None:
    config, warnings = config_of(
        {"fromNumber": "+15550002222", "some": {"from": "+15550001111"}, "numbers": {}}
    )
    assert config.from_number == "+15550002222"
    assert config.carriers == {"some": {}}
    assert warnings == ["c: some.from is ignored: fromNumber is there too; remove the old one"]


def test_an_old_key_without_a_value_is_dropped() -> None:
    config, warnings = config_of({"streaming": {"sttProvider": None}})
    assert config.streaming.provider is None
    assert warnings == ["c: streaming.sttProvider is empty: remove it"]


def test_keys_that_are_current_are_left_alone() -> None:
    assert config_of({"streaming": {"enabled": False}, "tts": {"provider": "x"}})[1] == []


def test_old_keys_of_providers() -> None:
    named = carrier("some", LegacyKey("some.number", "fromNumber"))
    config, warnings = config_of({"some": {"number": "+15550001111"}}, named, ("bad", Broken()))
    assert config.from_number == "+15550001111"
    assert warnings == ["c: some.number is an old key: write fromNumber instead"]
    # Nothing names the provider: it is asked because the phone does not know the key.
    unnamed = carrier("other", LegacyKey("dialFrom", "fromNumber"))
    config, _ = config_of({"dialFrom": "+15550003333"}, unnamed, ("bad", Broken()))
    assert config.from_number == "+15550003333"
    with pytest.raises(ConfigError, match="dialFrom: unknown key"):
        config_of({"dialFrom": "+15550003333"}, ("bad", Broken()))


def test_rules_for_removed_keys_and_chosen_values() -> None:
    rules = [LegacyRule("a.{x}Old.y", "b.{x}.{=choice}"), LegacyRule("gone.{any}")]
    tree = {"a": {"oneOld": {"y": 1}, "Old": {"y": 2}}, "gone": {"k": 1}, "choice": "c"}
    changed, changes = apply_rules(tree, rules)
    assert changed == {
        "a": {"oneOld": {}, "Old": {"y": 2}},
        "gone": {},
        "choice": "c",
        "b": {"one": {"c": 1}},
    }
    assert [change.replacement for change in changes] == ["b.one.c", None]
    assert apply_rules({**tree, "choice": "a.b"}, rules[:1])[1] == []
