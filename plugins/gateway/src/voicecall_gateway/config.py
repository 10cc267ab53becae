"""The gateway's configuration: reads one file and validates the gateway's own sections.

The configuration of a plugin is processed only when the plugin is used (:mod:`.pluginconfig`).
Nothing here reads ``os.environ``: the environment is an argument.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from voicecall.configuring import validate
from voicecall.errors import ConfigError

from .jsonfile import FileVersion, file_exists, file_version, read_tree
from .legacy import CORE_RULES, apply_rules
from .secretrefs import UNAVAILABLE, SecretsSection
from .secretresolver import Secrets
from .sections import (
    FOREIGN_ENTRY_KEYS,
    FOREIGN_KEYS,
    GatewaySection,
    PluginEntry,
    PluginsSection,
)
from .substitute import Missing, substitute

__all__ = ["LoadedConfig", "config_file", "config_from_tree", "load_config", "state_directory"]

KNOWN_SECTIONS = ("gateway", "plugins", "secrets", "tts", "agents", "session")
OPEN_SECTIONS = ("tts", "agents", "session")
"""Sections that plugins read."""

INCLUDE = "$include"
"""The key with which OpenClaw's files include other files."""

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A usable configuration.

    ``source`` is its name in errors (the file's path), ``tree`` the whole file with old keys
    translated but nothing substituted. ``warnings`` and ``notes`` are sentences. ``version`` is
    the file's version before it was read. ``kept`` caches processed parts by name.
    """

    source: str
    tree: Mapping[str, Any] = field(repr=False)
    gateway: GatewaySection
    plugins: PluginsSection
    state_dir: Path
    secrets: Secrets
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    version: FileVersion | None = None
    kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def section(self, name: str) -> Mapping[str, Any]:
        """A top-level object with its secrets resolved; ``{}`` if it is absent. The first time,
        files may be read and programs run."""
        if name not in self.kept:
            value = self.tree.get(name)
            own = value if isinstance(value, dict) else {}
            self.kept[name] = self.secrets.resolve(own, name) if name in OPEN_SECTIONS else own
        section: Mapping[str, Any] = self.kept[name]
        return section

    def denied(self, plugin_id: str) -> bool:
        """Whether a plugin is on the deny list, or missing from the allow list if there is one."""
        allow = self.plugins.allow
        return plugin_id in self.plugins.deny or (allow is not None and plugin_id not in allow)

    def enabled(self, plugin_id: str) -> bool:
        """Whether a plugin is to be loaded: neither denied nor switched off."""
        if self.denied(plugin_id):
            return False
        return self.plugins.entries.get(plugin_id, PluginEntry()).enabled

    def plugin_values(self, plugin_id: str) -> Mapping[str, Any]:
        """The value of ``plugins.entries.<id>.config`` in the file."""
        return self.plugins.entries.get(plugin_id, PluginEntry()).config


def state_directory(environ: Mapping[str, str]) -> Path:
    """``VOICECALL_STATE_DIR`` or ``~/.voicecall``; not created here. Raises :exc:`ConfigError`."""
    return _path(environ.get("VOICECALL_STATE_DIR", "").strip() or "~/.voicecall", environ)


def config_file(explicit: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: the argument, ``VOICECALL_CONFIG``, or ``~/.voicecall/config.json5``.
    Raises :exc:`ConfigError`."""
    return _path(_named_file(explicit, environ) or "~/.voicecall/config.json5", environ)


def _named_file(explicit: Path | None, environ: Mapping[str, str]) -> str:
    return environ.get("VOICECALL_CONFIG", "").strip() if explicit is None else str(explicit)


def _path(text: str, environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME")
    if home and (text == "~" or text.startswith("~/")):
        return Path(home + text[1:])
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{text}: the home directory that ~ stands for is not known; write the path in full"
        ) from None


def load_config(explicit: Path | None, environ: Mapping[str, str]) -> LoadedConfig:
    """Read and check the configuration. A missing default file counts as empty; a missing file
    that was named is an error. Raises :exc:`ConfigError`."""
    file = config_file(explicit, environ)
    version = file_version(file)
    if _named_file(explicit, environ) or file_exists(file):
        loaded = config_from_tree(read_tree(file), environ=environ, source=str(file))
        return replace(loaded, version=version)
    loaded = config_from_tree({}, environ=environ, source=str(file))
    others = (file.with_suffix(suffix) for suffix in (".json", ".toml"))
    unread = [
        f"{other}: is not read; name it with --config or VOICECALL_CONFIG"
        for other in others
        if file_exists(other)
    ]
    return replace(loaded, warnings=(*loaded.warnings, *unread))


def config_from_tree(
    tree: Mapping[str, Any],
    *,
    environ: Mapping[str, str],
    source: str = "configuration",
    state_dir: Path | None = None,
) -> LoadedConfig:
    """Check a configuration that the program already holds. Raises :exc:`ConfigError`."""
    values, changes = apply_rules(tree, CORE_RULES)
    notes = [_unknown_sections(values)]
    for name in KNOWN_SECTIONS:
        if values.get(name) is not None and not isinstance(values[name], dict):
            raise ConfigError(f"{source}: {name}: must be an object, {{ ... }}")
    ours = {key: values[key] for key in values if key in (*KNOWN_SECTIONS, INCLUDE)}
    for path in _includes(ours):
        raise ConfigError(
            f"{source}: {path}: other files cannot be included; replace the key by their content"
        )
    missing: Missing = []
    secret_values = substitute(values.get("secrets") or {}, environ, missing, "secrets")
    secrets = Secrets(_validated(source, SecretsSection, secret_values, "secrets"), environ)
    gateway_values = _own(values.get("gateway") or {}, "gateway", notes)
    if isinstance(gateway_values.get("auth"), dict):
        gateway_values["auth"] = _own(gateway_values["auth"], "gateway.auth", notes)
    gateway_values = _gateway_values(gateway_values, environ, missing, secrets)
    gateway = _validated(source, GatewaySection, gateway_values, "gateway")
    plugins = _plugins(source, _own(values.get("plugins") or {}, "plugins", notes))
    _check_gateway(source, gateway, secrets)
    for name in OPEN_SECTIONS:
        substitute(values.get(name), environ, missing, name)
    warnings = [change.message for change in changes]
    warnings += [f"{path}: {reason}" for path, reason in missing]
    return LoadedConfig(
        source=source,
        tree=values,
        gateway=gateway,
        plugins=plugins,
        state_dir=state_dir or state_directory(environ),
        secrets=secrets,
        warnings=tuple(f"{source}: {warning}" for warning in warnings),
        notes=tuple(f"{source}: {note}" for note in notes if note),
    )


def _includes(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all ``$include`` keys."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _includes(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            below = f"{path}.{key}" if path else str(key)
            if key == INCLUDE:
                yield below
            else:
                yield from _includes(item, below)


def _gateway_values(
    section: dict[str, Any], environ: Mapping[str, str], missing: Missing, secrets: Secrets
) -> dict[str, Any]:
    """The section with its variables substituted; the token may be a reference."""
    values: dict[str, Any] = substitute(section, environ, missing, "gateway")
    auth = section.get("auth")
    if isinstance(auth, dict) and "token" in auth:
        token = secrets.resolve(auth["token"], "gateway.auth.token")
        values["auth"] = {**values["auth"], "token": token}
    return values


def _validated(source: str, model: type[Model], values: Any, path: str) -> Model:
    try:
        return validate(model, values, path)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _plugins(source: str, values: dict[str, Any]) -> PluginsSection:
    entries = values.get("entries")
    if isinstance(entries, dict):
        entries = values["entries"] = {
            plugin_id: _without(entry, FOREIGN_ENTRY_KEYS) if isinstance(entry, dict) else entry
            for plugin_id, entry in entries.items()
        }
    try:
        return _validated(source, PluginsSection, values, "plugins")
    except ConfigError as error:
        if "did you mean" in str(error):
            raise
        for key, value in values.items():
            if isinstance(value, dict) and key not in PluginsSection.model_fields:
                raise ConfigError(
                    f"{error}; a plugin is configured in plugins.entries.{key}.config"
                ) from None
        for plugin_id, entry in entries.items() if isinstance(entries, dict) else ():
            if isinstance(entry, dict) and entry.keys() - PluginEntry.model_fields.keys():
                raise ConfigError(
                    f"{error}; the keys of a plugin belong in plugins.entries.{plugin_id}.config"
                ) from None
        raise


def _without(values: Mapping[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _own(section: Mapping[str, Any], name: str, notes: list[str]) -> dict[str, Any]:
    """A section without the keys that only OpenClaw uses; they are listed in ``notes``."""
    passed = sorted(set(section) & FOREIGN_KEYS[name])
    if passed:
        notes.append(f"{name}: keys that have no effect here are ignored: {', '.join(passed)}")
    return _without(section, FOREIGN_KEYS[name])


def _unknown_sections(tree: Mapping[str, Any]) -> str:
    unknown = [key for key in tree if key not in KNOWN_SECTIONS]
    if not unknown:
        return ""
    named = []
    for key in unknown:
        close = difflib.get_close_matches(key, KNOWN_SECTIONS, 1, 0.75)
        named.append(key + (f" (did you mean {close[0]!r}?)" if close else ""))
    return f"unknown sections are ignored: {', '.join(named)}"


def _check_gateway(source: str, gateway: GatewaySection, secrets: Secrets) -> None:
    token = gateway.auth.token
    if token == UNAVAILABLE:
        # Falling back to another token would let in whoever knows that one.
        reason = secrets.failures.get("gateway.auth.token", "the secret cannot be read")
        raise ConfigError(f"{source}: gateway.auth.token: {reason}")
    if "gateway.auth.token" in secrets.missing:
        reason = secrets.missing["gateway.auth.token"]
        raise ConfigError(
            f"{source}: gateway.auth.token: {reason}; correct this, or remove the key to have a"
            " token generated"
        )
    if gateway.auth.mode == "none" and not gateway.is_loopback:
        raise ConfigError(
            f"{source}: gateway.auth.mode: 'none' is allowed on a loopback address only;"
            f" set it to 'token' or gateway.bind (now {gateway.bind}) to 127.0.0.1"
        )
