"""Rewriting the old keys of a configuration file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voicecall.registry import Registry

from .configfile import editable_text, write_text
from .json5edit import CannotEdit, line_end, remove_key, set_key
from .jsonfile import parse_tree
from .legacy import CORE_RULES, Change, apply_rules, value_at
from .pluginconfig import in_block, provider_rules
from .plugins import load_plugin, plugin_ids

__all__ = ["Rewritten", "old_keys", "rewrite"]

_ENTRY = len(("plugins", "entries", "id", "config"))


@dataclass(frozen=True, slots=True)
class Rewritten:
    """``backup``: the path of the old text; ``plain``: comments and layout could not be kept."""

    backup: Path | None
    plain: bool


def old_keys(tree: Mapping[str, Any], registry: Registry) -> tuple[dict[str, Any], list[Change]]:
    """``tree`` with today's keys, and every change for the gateway and all installed plugins and
    providers, including those that are off."""
    result, changes = apply_rules(tree, CORE_RULES)
    for plugin_id in plugin_ids(registry):
        entry = value_at(result, ("plugins", "entries", plugin_id))
        config = value_at(entry, ("config",))
        if not isinstance(config, dict) or (info := load_plugin(registry, plugin_id).info) is None:
            continue
        own = info.legacy_rules() if info.legacy_rules is not None else ()
        entry["config"], found = apply_rules(config, [*provider_rules(registry, None), *own])
        changes += [change.below(f"plugins.entries.{plugin_id}.config") for change in found]
    return result, changes


def rewrite(file: Path, registry: Registry) -> Rewritten:
    """Write today's keys into ``file``. Raises :exc:`CannotEdit` for TOML, and
    :exc:`voicecall.errors.ConfigError`."""
    text = editable_text(file)
    wanted, changes = old_keys(parse_tree(text.removeprefix("\ufeff"), str(file)), registry)
    emptied = _remove_emptied(wanted, changes, registry)
    try:
        edited = _edited(text, changes)
        for path in emptied:
            edited = remove_key(edited, path)
        if parse_tree(edited.removeprefix("\ufeff"), str(file)) != wanted:
            raise CannotEdit("the edits do not lead to the configuration that was wanted")
        return Rewritten(write_text(file, edited), plain=False)
    except CannotEdit:
        plain = json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
        return Rewritten(write_text(file, plain.replace("\n", line_end(text))), plain=True)


def _remove_emptied(
    tree: dict[str, Any], changes: Sequence[Change], registry: Registry
) -> list[Sequence[str]]:
    """Remove from ``tree`` the objects that held nothing but old keys, and return their paths. A
    provider's block stays, because its presence may be why the provider is chosen."""
    removed: list[Sequence[str]] = []
    for change in changes:
        path = change.path.split(".")[:-1] if change.replacement != change.path else []
        while path and value_at(tree, path) == {} and not _stays(path, registry):
            del value_at(tree, path[:-1])[path[-1]]
            removed.append(path)
            path = path[:-1]
    return removed


def _stays(path: Sequence[str], registry: Registry) -> bool:
    """Whether to keep the object at ``path``: it is or belongs to a provider's block, or is not
    part of a plugin's configuration."""
    if path[:2] != ["plugins", "entries"]:
        return ".providers." in f".{'.'.join(path)}."
    info = load_plugin(registry, path[2]).info
    if info is None or len(path) <= _ENTRY:
        return True
    model = info.config_model() if info.config_model is not None else None
    return in_block(".".join([*path[_ENTRY:], ""]), info, model)


def _edited(text: str, changes: list[Change]) -> str:
    for change in changes:
        if change.replacement is not None and change.value is not None:
            text = set_key(text, change.replacement.split("."), change.value)
        if change.replacement != change.path:
            text = remove_key(text, change.path.split("."))
    return text
