"""Checks the blocks of all installed providers in a configuration, whether they are used or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from voicecall.errors import ConfigError, PluginError
from voicecall.providers import ProviderKind
from voicecall.registry import Registry
from voicecall.selection import missing_fields, provider_config

from .config import LoadedConfig
from .pluginconfig import plugin_values
from .plugins import load_plugins
from .schema import SECTION_BLOCKS

__all__ = ["block_warnings"]


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
            path, place = root, values
            for part in below.split(".") if below else ():
                path, inside = f"{path}.{part}", place.get(part)
                place = inside if isinstance(inside, Mapping) else {}
            for provider_id in registry.ids(kind):
                if isinstance(block := place.get(provider_id), Mapping):
                    yield f"{path}.{provider_id}", kind, provider_id, block
