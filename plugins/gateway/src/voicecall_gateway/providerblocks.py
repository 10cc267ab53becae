"""Checks the blocks of providers in a configuration, whether they are used or not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from voicecall.errors import ConfigError, PluginError
from voicecall.providers import ProviderKind
from voicecall.registry import Registry
from voicecall.selection import missing_fields, provider_config
from voicecall.wording import did_you_mean

from .config import LoadedConfig
from .pluginconfig import plugin_values
from .plugins import LIKENESS, load_plugins
from .schema import SECTION_BLOCKS

__all__ = ["block_warnings", "misspelt_blocks"]


def block_warnings(
    registry: Registry, loaded: LoadedConfig, environ: Mapping[str, str]
) -> list[str]:
    """One sentence for each block that its provider rejects. A block without a credential counts as
    not configured, which is not an error."""
    found = []
    for path, kind, provider_id, block in _blocks(registry, loaded):
        try:
            info = registry.load(kind, provider_id)
            if not missing_fields(info, block, environ):
                provider_config(info, block, environ, path)
        except ConfigError as error:
            found.append(f"{loaded.source}: {loaded.secrets.hide(str(error))}")
        except PluginError:
            # The error is reported when the provider is selected.
            continue
    return found


def misspelt_blocks(registry: Registry, loaded: LoadedConfig) -> list[str]:
    """One sentence for each block whose name resembles that of an installed provider. Other unknown
    names may be those of another program's providers."""
    places = [("tts", loaded.tree.get("tts"), SECTION_BLOCKS["tts"])]
    for plugin in load_plugins(registry, loaded):
        if plugin.info is not None:
            path = f"plugins.entries.{plugin.id}.config"
            places.append((path, loaded.plugin_values(plugin.id), plugin.info.provider_blocks))
    found = []
    for root, values, blocks in places:
        # Next to a plugin's own keys an unknown name is an error.
        for below, kind in blocks.items():
            if below:
                path, place = _below(root, values, below)
                found += [
                    f"{loaded.source}: {path}.{text}" for text in _misspelt(registry, kind, place)
                ]
    return found


def _misspelt(registry: Registry, kind: ProviderKind, names: Iterable[str]) -> Iterator[str]:
    installed = registry.ids(kind)
    for name in names:
        meant = did_you_mean(name, installed, LIKENESS) if name not in installed else ""
        if meant and not _is_alias(registry, kind, name):
            what = f"no {kind} provider of this name is installed; the block is ignored"
            yield f"{name}: {what}{meant}"


def _is_alias(registry: Registry, kind: ProviderKind, name: str) -> bool:
    try:
        registry.load(kind, name)
    except PluginError:
        return False
    return True


def _blocks(
    registry: Registry, loaded: LoadedConfig
) -> Iterator[tuple[str, ProviderKind, str, Mapping[str, Any]]]:
    """Path, kind, id and content of each block of an installed provider."""
    places = [(name, loaded.section(name), blocks) for name, blocks in SECTION_BLOCKS.items()]
    for plugin in load_plugins(registry, loaded):
        if plugin.info is not None:
            values = plugin_values(registry, loaded, plugin.info).values
            path = f"plugins.entries.{plugin.id}.config"
            places.append((path, values, plugin.info.provider_blocks))
    for root, values, blocks in places:
        for below, kind in blocks.items():
            path, place = _below(root, values, below)
            for provider_id in registry.ids(kind):
                if isinstance(block := place.get(provider_id), Mapping):
                    yield f"{path}.{provider_id}", kind, provider_id, block


def _below(root: str, values: Any, below: str) -> tuple[str, Mapping[str, Any]]:
    """Path and content of the object at ``below`` in ``values``."""
    place = values if isinstance(values, Mapping) else {}
    for part in below.split(".") if below else ():
        root, inside = f"{root}.{part}", place.get(part)
        place = inside if isinstance(inside, Mapping) else {}
    return root, place
