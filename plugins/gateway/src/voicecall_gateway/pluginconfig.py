"""The configuration of one plugin: old keys translated, secrets resolved, values validated.

The references of a plugin that is off are never followed. A reference that fails keeps a plugin
from starting, except in the block of a provider: a provider without its credential counts as not
configured, and another one can be chosen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from voicecall.configuring import validate
from voicecall.errors import ConfigError, PluginError
from voicecall.hosting import LegacyRule, PluginInfo
from voicecall.providers import ProviderKind
from voicecall.registry import Registry

from .config import OPEN_SECTIONS, LoadedConfig
from .legacy import apply_rules
from .plugins import LoadedPlugin, load_plugin

__all__ = [
    "PluginValues",
    "in_block",
    "plugin_config",
    "plugin_values",
    "provider_rules",
    "value_warnings",
]


@dataclass(frozen=True, slots=True)
class PluginValues:
    """The values of a plugin entry. ``warnings`` are sentences, also about old keys."""

    values: Mapping[str, Any] = field(repr=False)
    warnings: tuple[str, ...] = ()


def plugin_config(registry: Registry, loaded: LoadedConfig, plugin_id: str) -> Any:
    """The validated configuration of a plugin entry, or the plain mapping if the plugin has no
    model; cached in ``loaded``. Raises :exc:`ConfigError` and :exc:`PluginError`. The first time,
    files may be read and programs run for its secrets."""
    key = f"config {plugin_id}"
    if key not in loaded.kept:
        loaded.kept[key] = _plugin_config(registry, loaded, plugin_id)
    return loaded.kept[key]


def _plugin_config(registry: Registry, loaded: LoadedConfig, plugin_id: str) -> Any:
    plugin = load_plugin(registry, plugin_id)
    if plugin.info is None:
        raise PluginError(plugin.error or f"the plugin {plugin_id!r} cannot be loaded")
    values = plugin_values(registry, loaded, plugin.info).values
    path = _path(plugin_id)
    model = plugin.info.config_model() if plugin.info.config_model is not None else None
    for failed, reason in loaded.secrets.failures.items():
        inside = failed.removeprefix(f"{path}.")
        if inside != failed and not in_block(inside, plugin.info, model):
            raise ConfigError(f"{loaded.source}: {failed}: {reason}")
    if model is None:
        return values
    try:
        return validate(model, values, path)
    except ConfigError as error:
        raise ConfigError(f"{loaded.source}: {loaded.secrets.explain(str(error))}") from None
    except Exception as error:
        # The message is left out because it may quote a credential.
        raise PluginError(
            f"the configuration model of the plugin {plugin_id!r} fails with {type(error).__name__}"
        ) from error


def plugin_values(registry: Registry, loaded: LoadedConfig, info: PluginInfo) -> PluginValues:
    """The values of a plugin entry, with today's keys and resolved secrets; cached in
    ``loaded``."""
    key = f"plugin {info.id}"
    if key not in loaded.kept:
        loaded.kept[key] = _plugin_values(registry, loaded, info)
    found: PluginValues = loaded.kept[key]
    return found


def _plugin_values(registry: Registry, loaded: LoadedConfig, info: PluginInfo) -> PluginValues:
    raw = loaded.plugin_values(info.id)
    own = info.legacy_rules() if info.legacy_rules is not None else ()
    values, changes = apply_rules(raw, [*provider_rules(registry, raw), *own])
    if info.config_model is not None and own and not _accepts(info.config_model(), values):
        # There may be old keys of a provider that the configuration does not name.
        values, changes = apply_rules(raw, [*provider_rules(registry, None), *own])
    path = _path(info.id)
    resolved = loaded.secrets.resolve(values, path)
    warnings = [change.below(path).message for change in changes] + loaded.secrets.warnings(path)
    return PluginValues(resolved, tuple(f"{loaded.source}: {text}" for text in warnings))


def value_warnings(
    registry: Registry, loaded: LoadedConfig, plugins: Iterable[LoadedPlugin]
) -> list[str]:
    """One sentence for everything missing or outdated in what ``plugins`` may ask for."""
    warnings: list[str] = []
    for name in OPEN_SECTIONS:
        loaded.section(name)
        warnings += [f"{loaded.source}: {text}" for text in loaded.secrets.reference_warnings(name)]
    for plugin in plugins:
        if plugin.info is not None:
            warnings += plugin_values(registry, loaded, plugin.info).warnings
    return warnings


def provider_rules(registry: Registry, values: Mapping[str, Any] | None) -> Sequence[LegacyRule]:
    """The old keys that providers declare: the providers whose ids occur in ``values``, or for None
    all installed ones."""
    text = None if values is None else json.dumps(values, default=str).lower()
    rules: dict[str, LegacyRule] = {}
    for kind in ProviderKind:
        for provider_id in registry.ids(kind):
            if text is not None and provider_id.lower() not in text:
                continue
            for key in _legacy_keys(registry, kind, provider_id):
                rules[key.old] = LegacyRule(key.old, key.new)
    return list(rules.values())


def _legacy_keys(registry: Registry, kind: ProviderKind, provider_id: str) -> Sequence[Any]:
    try:
        return registry.load(kind, provider_id).legacy_keys
    except Exception as error:  # noqa: BLE001 (a stranger's package)
        # The error is reported when the provider is selected; here it only has no old keys.
        registry.failures.setdefault((kind.group, provider_id), str(error))
        return ()


def _accepts(model: type[BaseModel], values: Mapping[str, Any]) -> bool:
    try:
        validate(model, values, "")
    except Exception:  # noqa: BLE001 (a stranger's model: who asks for the values is told)
        return False
    return True


def _path(plugin_id: str) -> str:
    return f"plugins.entries.{plugin_id}.config"


def in_block(inside: str, info: PluginInfo, model: type[BaseModel] | None) -> bool:
    """Whether a path below a plugin's configuration lies in a provider's block."""
    if ".providers." in f".{inside}":
        return True
    for root in info.provider_blocks:
        if root and inside.startswith(f"{root}."):
            return True
    if "" not in info.provider_blocks or model is None or "." not in inside:
        return False
    fields = model.model_fields.items()
    own = {name for name, _ in fields} | {field.alias for _, field in fields}
    return inside.partition(".")[0] not in own
