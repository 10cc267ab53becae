"""One mistake somewhere in a valid configuration file: it is either harmless, or an error that
names the place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall.errors import ConfigError
from voicecall.registry import Registry
from voicecall_calls.plugin import voicecall_plugin_info
from voicecall_calls.wiring import resolve
from voicecall_gateway.config import config_from_tree
from voicecall_gateway.jsonfile import parse_tree
from voicecall_gateway.migration import old_keys
from voicecall_gateway.pluginconfig import plugin_config, plugin_values

from .openclaw_files import ENVIRON, FILES

pytestmark = pytest.mark.integration

Path = tuple[str | int, ...]
REGISTRY = Registry()
TREES = {name: parse_tree(text, name) for name, text in FILES.items()}
VALUES: dict[str, Any] = {
    "null": None,
    "list": [1],
    "nothing in a list": [],
    "number": 7,
    "negative": -1.5,
    "true": True,
    "object": {"surprise": 1},
    "huge text": "x" * 100_000,
    "blank": "",
}
KINDS = (*VALUES, "drop", "misspell", "huge key", "nest", "wrap")
REFERENCE_KEYS = {"source", "provider", "id"}


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in items:
        yield (*path, key)
        if isinstance(below, dict | list):
            yield from places(below, (*path, key))


ALL = [(name, path) for name, tree in TREES.items() for path in places(tree)]


def mutated(name: str, path: Path, kind: str) -> tuple[Any, Path]:
    """The tree with one mistake, and where it is."""
    tree = copy.deepcopy(TREES[name])
    parent: Any = tree
    for part in path[:-1]:
        parent = parent[part]
    key, value = path[-1], parent[path[-1]]
    if kind in VALUES:
        parent[key] = VALUES[kind]
    elif kind == "nest":
        parent[key] = {str(key): value}
    elif kind == "wrap":
        parent[key] = [value]
    elif kind == "drop" or isinstance(parent, list):
        del parent[key]
    else:
        del parent[key]
        new = f"{key}" * 3000 if kind == "huge key" else f"{str(key)[:-1]}z"
        parent[new] = value
        return tree, (*path[:-1], new)
    return tree, path


def check(tree: Any) -> None:
    """What a start and ``setup`` do with a file. Raises ``ConfigError``."""
    loaded = config_from_tree(tree, environ=ENVIRON, source="file")
    plugin_values(REGISTRY, loaded, voicecall_plugin_info())
    resolve(
        plugin_config(REGISTRY, loaded, "voice-call"),
        registry=REGISTRY,
        environ=ENVIRON,
        agents=loaded.section("agents"),
        tts=loaded.section("tts"),
    )


def outcome(tree: Any) -> str:
    """The error about a file; empty where there is none."""
    try:
        check(tree)
    except ConfigError as error:
        return str(error)
    return ""


def renames(name: str) -> dict[str, str]:
    """Old key -> new key of a file, as its warnings say."""
    _, changes = old_keys(TREES[name], REGISTRY)
    return {change.path: change.replacement for change in changes if change.replacement}


RENAMES = {name: renames(name) for name in TREES}


def names(name: str, path: Path, mistake: Path, kind: str) -> set[str]:
    """What an error may call the place of a mistake."""
    found = {path, mistake}
    if kind in ("drop", "misspell", "huge key", "nest"):
        # An object that lacks one of its keys.
        found.add(path[:-1])
    if set(map(str, path[-1:])) <= REFERENCE_KEYS:
        # A reference to a secret is one value.
        found.add(path[:-1])
    if kind in ("huge text", "blank"):
        # Right in itself, and missed by something that refers to it: the list is named.
        found.add(path[: next((i for i, part in enumerate(path) if isinstance(part, int)), None)])
    dotted = {".".join(map(str, one)) for one in found if one}
    for old, new in RENAMES[name].items():
        dotted |= {new + one.removeprefix(old) for one in dotted if f"{one}.".startswith(f"{old}.")}
    return dotted


@settings(max_examples=200)
@given(st.sampled_from(ALL), st.sampled_from(KINDS))
def test_one_mistake_is_harmless_or_named(place: tuple[str, Path], kind: str) -> None:
    name, path = place
    tree, mistake = mutated(name, path, kind)
    text = outcome(tree)
    wanted = names(name, path, mistake, kind)
    assert not text or any(one in text for one in wanted), f"{kind} at {path}: {text[:500]}"


def test_the_mistakes_are_real() -> None:
    """Most places refuse a list that holds a number."""
    refused = [path for name, path in ALL if outcome(mutated(name, path, "list")[0])]
    assert len(refused) > len(ALL) // 3


def test_an_error_about_a_huge_value_stays_short() -> None:
    refused = 0
    for name, path in ALL:
        text = outcome(mutated(name, path, "huge text")[0])
        assert len(text) < 2000, path
        refused += bool(text)
    assert refused > len(ALL) // 4
