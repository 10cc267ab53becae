"""Reading a configuration file: JSON5, plain JSON, or TOML with the same structure."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from voicecall.errors import ConfigError

__all__ = ["FileVersion", "file_exists", "file_version", "parse_tree", "read_tree"]

FileVersion = tuple[int, int, int]
MOST_LEVELS = 100
"""Of nested objects and lists; other code processes them recursively."""
_JSON5_ERROR = re.compile(r"^<string>:(\d+) (.*) at column (\d+)$", re.DOTALL)
_BARE_NAME = re.compile(r"([A-Za-z_$][\w$]*-[\w$-]*|\+?\d[\w$-]*)\s*:")
"""A key that JSON5 accepts only in quotes."""


def file_exists(file: Path) -> bool:
    """Whether ``file`` exists. Raises :exc:`ConfigError` if that cannot be determined."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(file, error) from None
    return True


def file_version(file: Path) -> FileVersion | None:
    """A value that changes with the file; None for a missing file, and for a pipe, which changes by
    itself."""
    try:
        about = file.stat()
    except OSError:
        return None
    regular = stat.S_ISREG(about.st_mode)
    return (about.st_mtime_ns, about.st_size, about.st_ino) if regular else None


def read_tree(file: Path) -> dict[str, Any]:
    """The object in ``file``. Raises :exc:`ConfigError` with the file and the position."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file; create it or name another") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise _unreadable(file, error) from None
    try:
        return parse_tree(text, str(file), toml=file.suffix == ".toml")
    except ConfigError as error:
        if file.suffix in (".yaml", ".yml"):
            raise ConfigError(f"{error}; YAML is not read: write JSON5 or TOML") from None
        raise


def parse_tree(text: str, name: str, *, toml: bool = False) -> dict[str, Any]:
    """``text`` as an object; ``name`` stands for it in errors. Raises :exc:`ConfigError`."""
    try:
        tree = tomllib.loads(text) if toml else _json(text, name)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: is not valid TOML: {error}") from None
    except RecursionError:
        raise _too_deep(name) from None
    if _levels(tree) > MOST_LEVELS:
        raise _too_deep(name)
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}: must hold one object, {{ ... }}, not {_kind(tree)}")
    return tree


def _too_deep(name: str) -> ConfigError:
    return ConfigError(f"{name}: is nested too deeply; flatten it")


def _levels(tree: Any) -> int:
    """How deeply objects and lists are nested; counting stops beyond :data:`MOST_LEVELS`."""
    level, inside = 0, [tree]
    while level <= MOST_LEVELS:
        inside = [value for value in inside if isinstance(value, dict | list)]
        if not inside:
            break
        level += 1
        inside = [item for value in inside for item in _items(value)]
    return level


def _items(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _unreadable(file: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{file}: cannot be read: {error.strerror}; make it readable, or name another with --config"
        " or VOICECALL_CONFIG"
    )


def _json(text: str, name: str) -> Any:
    def members(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ConfigError(
                    f"{name}: has the key {key!r} more than once in one object; only the last would"
                    " count: merge them"
                )
            found[key] = value
        return found

    try:
        # Many files are plain JSON, which the standard library parses a hundred times faster.
        return json.loads(text, object_pairs_hook=members)
    except ValueError:
        pass
    if not text.strip():
        raise ConfigError(f"{name}: is empty; write at least {{}}")
    import json5

    try:
        return json5.loads(text, object_pairs_hook=members)
    except ValueError as error:
        raise ConfigError(f"{name}: is not valid JSON5: {_place(str(error), text)}") from None


def _place(message: str, text: str) -> str:
    match = _JSON5_ERROR.match(message)
    if match is None:
        return message
    line, what, column = match.groups()
    place = f"line {line}, column {column}: {what[:1].lower()}{what[1:]}"
    for bare in _BARE_NAME.finditer(text.split("\n")[int(line) - 1]):
        if bare.start() < int(column) <= bare.end():
            return f'{place}; write this key in quotes: "{bare[1]}"'
    return place


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a string"
    return json.dumps(value)
