"""Choosing one provider of a kind, and making its configuration.

The outcomes are named as in the configuration reference: ``ok``,
``missing-configured-provider``, ``no-registered-provider`` and ``provider-not-configured``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .errors import ConfigError, PluginError
from .providers import ProviderInfo, ProviderKind
from .registry import Registry

__all__ = ["Selected", "Selection", "missing_fields", "provider_config", "select"]

_VARIABLE = re.compile(r"\$\{[A-Z][A-Z0-9_]*\}")


class Selection(StrEnum):
    OK = "ok"
    MISSING_CONFIGURED_PROVIDER = "missing-configured-provider"
    NO_REGISTERED_PROVIDER = "no-registered-provider"
    PROVIDER_NOT_CONFIGURED = "provider-not-configured"


@dataclass(frozen=True, slots=True)
class Selected:
    """The result of :func:`select`. If ``outcome`` is ``OK``, ``info`` and ``config`` are set;
    otherwise ``message`` says what to change."""

    outcome: Selection
    message: str = ""
    info: ProviderInfo | None = None
    config: Any = None


def _unresolved(value: Any) -> bool:
    """Whether a value is missing, blank, or contains an unresolved ``${VAR}``, and so cannot be a
    credential. A password may contain ``${...}`` with another name, but not consist of it."""
    if not isinstance(value, str):
        return value is None
    whole = value.startswith("${") and value.endswith("}")
    return not value.strip() or whole or _VARIABLE.search(value) is not None


def _with_environment(
    info: ProviderInfo, raw: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    values = dict(raw)
    for field, variable in info.secrets.items():
        if values.get(field) is None and environ.get(variable, "").strip():
            values[field] = environ[variable].strip()
    return values


def missing_fields(
    info: ProviderInfo, raw: Mapping[str, Any], environ: Mapping[str, str]
) -> list[str]:
    """Required fields of ``info`` that neither ``raw`` nor the environment supplies, and secrets
    that are configured but could not be resolved."""
    values = _with_environment(info, raw, environ)
    missing = [field for field in info.required if _unresolved(values.get(field))]
    failed = [f for f in info.secrets if values.get(f) is not None and _unresolved(values[f])]
    return [*missing, *(field for field in failed if field not in missing)]


def provider_config(
    info: ProviderInfo, raw: Mapping[str, Any], environ: Mapping[str, str], path: str
) -> Any:
    """The validated configuration of a provider (None if it has no model).

    Missing secrets are taken from the environment. Raises :exc:`ConfigError`, which names the full
    path and the variable, and :exc:`PluginError` if the provider's model cannot be loaded or fails.
    """
    if missing := missing_fields(info, raw, environ):
        field = missing[0]
        raise ConfigError(
            f"is required by {info.label}{_misspelt(info, raw, missing)}",
            path=f"{path}.{field}",
            env=info.secrets.get(field),
        )
    if info.config_model is None:
        if raw:
            raise ConfigError(f"{info.label} has no configuration", path=path)
        return None
    from pydantic import BaseModel

    from .configuring import validate

    values = _with_environment(info, raw, environ)
    try:
        model: Any = info.config_model()
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise TypeError(f"its config_model returns {model!r}, not a pydantic model")
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"the {info.kind.value} provider {info.id!r} cannot be used:"
            f" {type(error).__name__}: {error}"
        ) from error
    try:
        return validate(model, values, path, env=info.secrets)
    except ConfigError:
        raise
    except Exception as error:
        # The message of the error may quote a credential.
        raise PluginError(
            f"the {info.kind.value} provider {info.id!r} cannot be used: its configuration model"
            f" fails with {type(error).__name__}"
        ) from error


def select(
    registry: Registry,
    kind: ProviderKind,
    configured_id: str | None,
    blocks: Mapping[str, Mapping[str, Any]],
    environ: Mapping[str, str],
    path: str,
    *,
    named_at: str = "",
) -> Selected:
    """The provider to use.

    ``configured_id`` is the id that the operator wrote (None: use the first configured provider in
    order of automatic selection, except demo providers). ``blocks`` is the configuration of each
    provider by id, found at ``path``; ``named_at`` is the key for the id. Keys of a block under an
    alias override those under the canonical id, and those under ``configured_id`` override all
    others. Raises :exc:`ConfigError` only for a block that is present and wrong.
    """
    if configured_id is None:
        return _select_first(registry, kind, blocks, environ, path, named_at)
    try:
        info = registry.load(kind, configured_id)
    except PluginError as error:
        message = f"{named_at}: {error}" if named_at else str(error)
        return Selected(Selection.MISSING_CONFIGURED_PROVIDER, message)
    name, raw = _block(info, blocks, configured_id)
    return _selected(info, raw, environ, f"{path}.{name}")


def _block(
    info: ProviderInfo, blocks: Mapping[str, Mapping[str, Any]], configured_id: str | None
) -> tuple[str, dict[str, Any]]:
    """The name of the block that overrides the others, and the merged blocks of a provider."""
    names = (info.id, *info.aliases, configured_id)
    written = [name for name in names if name is not None and name in blocks]
    raw = {key: value for name in written for key, value in blocks[name].items()}
    return written[-1] if written else info.id, raw


def _selected(
    info: ProviderInfo, raw: Mapping[str, Any], environ: Mapping[str, str], path: str
) -> Selected:
    if missing := missing_fields(info, raw, environ):
        return _not_configured(info, path, missing, raw, environ)
    try:
        config = provider_config(info, raw, environ, path)
    except PluginError as error:
        return Selected(Selection.MISSING_CONFIGURED_PROVIDER, str(error))
    return Selected(Selection.OK, info=info, config=config)


def _not_configured(
    info: ProviderInfo,
    path: str,
    missing: list[str],
    raw: Mapping[str, Any],
    environ: Mapping[str, str],
) -> Selected:
    parts = [f"{path}.{field}" + _instead(info.secrets.get(field), environ) for field in missing]
    message = f"{info.label} is not configured: " + ", ".join(parts)
    message += _misspelt(info, raw, missing) + _wrong_too(info, raw, path, missing)
    return Selected(Selection.PROVIDER_NOT_CONFIGURED, message)


def _misspelt(info: ProviderInfo, raw: Mapping[str, Any], missing: list[str]) -> str:
    """A question for each key that may be a misspelt missing key."""
    slips = _slips(info, raw, missing)
    return "".join(f"; did you mean {meant!r} by {key!r}?" for key, meant in slips.items())


def _slips(info: ProviderInfo, raw: Mapping[str, Any], missing: list[str]) -> dict[str, str]:
    from difflib import get_close_matches

    others = sorted(raw.keys() - {*info.required, *info.secrets})
    close = {key: get_close_matches(key, missing, 1, 0.75) for key in others}
    return {key: found[0] for key, found in close.items() if found}


def _wrong_too(info: ProviderInfo, raw: Mapping[str, Any], path: str, missing: list[str]) -> str:
    """What else is wrong with the keys that a block has."""
    slips = _slips(info, raw, missing)
    there = {key: value for key, value in raw.items() if key not in slips}
    if not there or info.config_model is None:
        return ""
    from .configuring import wrong_keys

    try:
        wrong = wrong_keys(info.config_model(), there, path, missing, env=info.secrets)
    except (Exception, SystemExit):  # noqa: BLE001 (a stranger's model)
        # A broken model is reported once the block is complete.
        return ""
    return f"; {wrong}" if wrong else ""


def _instead(variable: str | None, environ: Mapping[str, str]) -> str:
    """What can supply a key that has no value."""
    if variable is None:
        return ""
    # If the variable is set, the key exists and is blank, and takes precedence over the variable.
    verb = "remove it to use" if environ.get(variable, "").strip() else "or set"
    return f" ({verb} {variable})"


def _none_to_choose(registry: Registry, kind: ProviderKind, named_at: str) -> str:
    named = ", ".join(info.id for info in registry.load_all(kind))
    if not named:
        return f"no {kind.value} provider is installed"
    where = f"in {named_at} " if named_at else ""
    return f"no installed {kind.value} provider is chosen automatically; name one {where}({named})"


def _select_first(
    registry: Registry,
    kind: ProviderKind,
    blocks: Mapping[str, Mapping[str, Any]],
    environ: Mapping[str, str],
    path: str,
    named_at: str,
) -> Selected:
    infos = [info for info in registry.load_all(kind) if not info.demo]
    if not infos:
        return Selected(Selection.NO_REGISTERED_PROVIDER, _none_to_choose(registry, kind, named_at))
    # A provider that needs no configuration and has none comes after the configured ones.
    own = [(info, *_block(info, blocks, None)) for info in infos]
    broken: Selected | None = None
    for info, name, raw in sorted(
        own, key=lambda one: not one[0].required and one[1] not in blocks
    ):
        selected = _selected(info, raw, environ, f"{path}.{name}")
        if selected.outcome is Selection.OK:
            return selected
        if selected.outcome is Selection.MISSING_CONFIGURED_PROVIDER:
            broken = broken or selected
    first, name, raw = own[0]
    return broken or _selected(first, raw, environ, f"{path}.{name}")
