"""Keys of older configurations: translated in memory, and listed.

Paths are written with dots, so keys that contain dots are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from voicecall.configuring import deep_merge
from voicecall.hosting import LegacyRule

__all__ = ["CORE_RULES", "TTS_KEYS", "Change", "apply_rules", "value_at"]

TTS_KEYS = frozenset({"modelOverrides", "personas", "providers"})
"""Objects in the section ``tts`` that are not blocks of providers."""

CORE_RULES: Sequence[LegacyRule] = (
    LegacyRule("messages.tts", "tts", objects=True),
    LegacyRule("tts.enabled", "tts.auto", values={True: "always", False: "off"}),
    LegacyRule("tts.edge", "tts.providers.microsoft", objects=True),
    LegacyRule("tts.providers.edge", "tts.providers.microsoft", objects=True),
    LegacyRule("tts.{provider}", "tts.providers.{provider}", reserved=TTS_KEYS, objects=True),
)

_SLOT = re.compile(r"\{(=?)([A-Za-z][\w.]*)\}")


@dataclass(frozen=True, slots=True)
class Change:
    """One old key at ``path``. ``replacement`` is the path where its value belongs (None: nowhere),
    ``value`` what to write there (None: leave what is there), ``advice`` the rest of a sentence
    about ``path``, in which ``{new}`` stands for ``replacement``."""

    path: str
    replacement: str | None
    advice: str
    value: Any = field(default=None, repr=False)

    @property
    def message(self) -> str:
        """One sentence for the operator."""
        return f"{self.path} {self.advice.replace('{new}', self.replacement or '')}"

    def below(self, prefix: str) -> Change:
        """The same change with ``prefix`` in front of its paths."""
        moved = f"{prefix}.{self.replacement}" if self.replacement is not None else None
        return replace(self, path=f"{prefix}.{self.path}", replacement=moved)


def apply_rules(
    tree: Mapping[str, Any], rules: Sequence[LegacyRule]
) -> tuple[dict[str, Any], list[Change]]:
    """A copy of ``tree`` with today's keys, and the changes in order."""
    result: dict[str, Any] = _copy(tree)
    changes: list[Change] = []
    for rule in rules:
        for path, slots in list(_matches(result, rule.old.split("."), rule.reserved)):
            change = _apply(result, rule, path, slots)
            if change is not None:
                changes.append(change)
    return result, changes


def _apply(
    tree: dict[str, Any], rule: LegacyRule, path: tuple[str, ...], slots: Mapping[str, str]
) -> Change | None:
    value = value_at(tree, path)
    if rule.objects and not isinstance(value, dict):
        return None
    if rule.values is not None:
        if isinstance(value, dict | list) or value not in rule.values:
            return None
        value = rule.values[value]
    old = ".".join(path)
    if rule.new is None or value is None:
        _remove(tree, path)
        why = "is empty" if value is None else "has no effect any more"
        return Change(old, None, f"{why}: remove it")
    new = _fill(rule.new, slots, tree)
    if new is None or not _reachable(tree, new):
        return None
    name = ".".join(new)
    if new == path:
        _put(tree, new, value)
        return Change(old, name, f"has an old value: write {value!r}", value)
    try:
        value = rule.convert(value) if rule.convert is not None else value
    except Exception as error:  # noqa: BLE001 (a stranger's function)
        _remove(tree, path)
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return Change(old, None, f"is ignored ({why}): remove it")
    _remove(tree, path)
    there = value_at(tree, new)
    if isinstance(there, dict) and isinstance(value, dict):
        value = deep_merge(value, there)
    elif there is not None:
        return Change(old, name, "is ignored: {new} is there too; remove the old one")
    _put(tree, new, value)
    return Change(old, name, "is an old key: write {new} instead", value)


def _matches(
    tree: Any, parts: Sequence[str], reserved: frozenset[str], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """The paths in ``tree`` that match a rule's old path, with the values of its slots."""
    if not parts:
        yield path, {}
        return
    if not isinstance(tree, dict):
        return
    pattern = re.compile(
        "".join(
            f"(?P<{piece[1:-1]}>.+)" if piece.startswith("{") else re.escape(piece)
            for piece in re.split(r"(\{\w+\})", parts[0])
        )
    )
    for key in tree:
        found = pattern.fullmatch(str(key))
        if found is None or (found.groupdict() and key in reserved) or "." in str(key):
            continue
        for below, slots in _matches(tree[key], parts[1:], reserved, (*path, key)):
            yield below, {**found.groupdict(), **slots}


def _fill(new: str, slots: Mapping[str, str], tree: Mapping[str, Any]) -> tuple[str, ...] | None:
    """``new`` with its slots filled: ``{name}`` from the old path, ``{=path}`` with the value at
    that path (or the key of an object with a single key); None if a slot has no usable value."""
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        there = value_at(tree, tuple(match[2].split("."))) if match[1] else slots.get(match[2])
        if isinstance(there, dict) and len(there) == 1:
            there = next(iter(there))
        if not isinstance(there, str) or not there or "." in there:
            missing = True
            return ""
        return there

    text = _SLOT.sub(value, new)
    return None if missing else tuple(text.split("."))


def _reachable(tree: Any, path: Sequence[str]) -> bool:
    """Whether everything on the way to ``path`` is an object or does not exist yet."""
    for part in path[:-1]:
        tree = tree.get(part, {})
        if not isinstance(tree, dict):
            return False
    return True


def value_at(tree: Any, path: Sequence[str]) -> Any:
    """The value at ``path``; None if there is none."""
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _remove(tree: dict[str, Any], path: Sequence[str]) -> None:
    for part in path[:-1]:
        tree = tree[part]
    del tree[path[-1]]


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
