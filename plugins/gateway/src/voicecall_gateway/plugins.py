"""Finding, loading and describing gateway plugins (entry-point group ``voicecall.gateway``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voicecall.errors import VoicecallError
from voicecall.providers import ProviderKind
from voicecall.registry import Registry, check_version
from voicecall.wording import did_you_mean

if TYPE_CHECKING:
    from voicecall.hosting import PluginInfo

    from .config import LoadedConfig

__all__ = [
    "GROUP",
    "LIKENESS",
    "LoadedPlugin",
    "described_plugin",
    "load_plugin",
    "load_plugins",
    "missing_backends",
    "missing_plugins",
    "missing_tools",
    "plugin_ids",
]

GROUP = "voicecall.gateway"
LIKENESS = 0.75
"""How similar a name must be to an installed one to count as a misspelling of it."""


@dataclass(frozen=True, slots=True)
class LoadedPlugin:
    """A gateway plugin after an attempt to load it: ``module`` and ``info`` are set if that
    succeeded, ``error`` if it failed. A plugin that is not enabled has none of the three."""

    id: str
    enabled: bool
    module: object | None = None
    info: PluginInfo | None = None
    error: str | None = None


def plugin_ids(registry: Registry) -> list[str]:
    """Ids of the installed gateway plugins. Nothing is imported."""
    return sorted({found.id for found in registry.found(GROUP)})


def described_plugin(registry: Registry, plugin_id: str) -> tuple[object, PluginInfo]:
    """Import one plugin and get its description. Raises what the registry and its hook raise, and
    :exc:`voicecall.errors.PluginError` for a plugin written for another version of the
    contracts."""
    from voicecall.hosting import PluginInfo

    module = registry.module(GROUP, plugin_id)
    info = registry.hooks.plugin_info(module) or PluginInfo(plugin_id, plugin_id)
    if not isinstance(info.api_version, int):
        raise TypeError("api_version must be a whole number")
    check_version(f"the plugin {plugin_id!r}", info.api_version)
    return module, info


def load_plugin(registry: Registry, plugin_id: str) -> LoadedPlugin:
    """Import one plugin. Its code is a stranger's, so a failure is recorded and never raised."""
    try:
        module, info = described_plugin(registry, plugin_id)
        _check(info)
    except VoicecallError as error:
        why = str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a stranger's hook)
        why = f"the plugin {plugin_id!r} cannot be loaded: {type(error).__name__}: {error}"
    else:
        if info.id == plugin_id:
            return LoadedPlugin(plugin_id, True, module, info)
        why = (
            f"the plugin {plugin_id!r} calls itself {info.id!r}; its entry point must have the"
            " same name"
        )
    return LoadedPlugin(plugin_id, True, error=why)


def _check(info: PluginInfo) -> None:
    """Raise ``TypeError`` for a wrong description, and whatever its functions raise: other code
    calls them without protection from here on."""
    from pydantic import BaseModel

    from voicecall.hosting import LegacyRule

    model: Any = info.config_model() if info.config_model is not None else BaseModel
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError("config_model must be a function that returns the pydantic model")
    rules: Any = info.legacy_rules() if info.legacy_rules is not None else ()
    if not (isinstance(rules, Sequence) and all(isinstance(rule, LegacyRule) for rule in rules)):
        raise TypeError("legacy_rules must be a function that returns a sequence of LegacyRule")
    blocks: Any = info.provider_blocks
    if not (
        isinstance(blocks, Mapping)
        and all(isinstance(kind, ProviderKind) for kind in blocks.values())
    ):
        raise TypeError("provider_blocks must be a mapping of paths to ProviderKind")


def load_plugins(registry: Registry, loaded: LoadedConfig) -> Sequence[LoadedPlugin]:
    """All installed plugins; those that are not enabled are not imported."""
    return [
        load_plugin(registry, plugin_id)
        if loaded.enabled(plugin_id)
        else LoadedPlugin(plugin_id, False)
        for plugin_id in plugin_ids(registry)
    ]


def missing_plugins(registry: Registry, loaded: LoadedConfig) -> Sequence[str]:
    """A warning for each entry whose plugin is not installed, for each name in ``plugins.allow`` or
    ``plugins.deny`` that looks misspelt, and for each plugin at the root of the file."""
    installed = plugin_ids(registry)
    found = [
        f"plugins.entries.{plugin_id}: no plugin of this name is installed; the entry is"
        f" ignored{did_you_mean(plugin_id, installed, LIKENESS)}"
        for plugin_id, entry in sorted(loaded.plugins.entries.items())
        if plugin_id not in installed and entry.enabled
    ]
    lists = {"allow": loaded.plugins.allow or (), "deny": loaded.plugins.deny}
    found += [
        f"plugins.{key}: no plugin {name!r} is installed{meant}"
        for key, names in lists.items()
        for name in names
        if name not in installed and (meant := did_you_mean(name, installed, LIKENESS))
    ]
    found += [
        f"{name}: is ignored; it belongs in plugins.entries.{name}.config"
        for name in loaded.tree
        if name in installed
    ]
    return found


def missing_tools(loaded: LoadedConfig, known: Collection[str]) -> Sequence[str]:
    """A warning for each denied tool whose name looks misspelt; ``known`` are the tools of the
    running plugins."""
    return [
        f"{loaded.source}: gateway.tools.deny: there is no tool {name!r}{meant}"
        for name in loaded.gateway.tools.deny
        if name not in known and (meant := did_you_mean(name, known, LIKENESS))
    ]


def missing_backends(registry: Registry, loaded: LoadedConfig) -> Sequence[str]:
    """A note for each block in ``agents.backends`` whose agent is not installed."""
    agents = loaded.tree.get("agents")
    blocks = agents.get("backends") if isinstance(agents, dict) else None
    installed = registry.ids(ProviderKind.AGENT)
    return [
        f"{loaded.source}: agents.backends.{agent_id}: no agent of this name is installed; the"
        f" block is ignored{did_you_mean(agent_id, installed, LIKENESS)}"
        for agent_id in sorted(blocks if isinstance(blocks, dict) else ())
        if agent_id not in installed
    ]
