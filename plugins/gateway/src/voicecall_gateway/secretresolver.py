"""The secrets of one loaded configuration and of the environment: fetched once, kept in memory,
never shown.

A reference that fails is replaced by :data:`.secretrefs.UNAVAILABLE`. That never counts as a
credential, and because the place is not empty, no other credential is used instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .logs import MASKED, credentials_in, credentials_of
from .secretexec import ask_program
from .secretfile import read_secrets
from .secretrefs import (
    UNAVAILABLE,
    EnvProvider,
    ExecProvider,
    FileProvider,
    SecretError,
    SecretRef,
    SecretsSection,
    is_reference,
    parse_reference,
)
from .substitute import Missing, substitute, why_missing

__all__ = ["Secrets"]

_SHORT = re.compile(r"\$([A-Z][A-Z0-9_]{0,127})")
_REJECTED = "secretref-env:"
MIN_MASKED = 6


class Secrets:
    """Replaces variables and references in parts of a configuration.

    ``failures`` says for each path why its reference has no value, ``missing`` which variable a
    text at a path lacks. No secret appears in a ``repr``.
    """

    def __init__(self, section: SecretsSection, environ: Mapping[str, str]) -> None:
        self.failures: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self._section = section
        self._environ = environ
        self._found: dict[SecretRef, str | SecretError] = {}
        self._known: set[str] = set()
        self._listeners: list[Callable[[Iterable[str]], None]] = []
        self._learn(credentials_of(environ))

    def resolve(self, value: Any, path: str) -> Any:
        """A copy of ``value`` (the value at ``path``) with everything replaced. May read files and
        run programs, so do not call it in the event loop's thread."""
        missing: Missing = []
        substituted = substitute(value, self._environ, missing, path)
        self.missing.update(missing)
        # Only the file contains references: the value of a variable is never taken for one.
        wanted: dict[str, SecretRef | SecretError] = {}
        _collect(value, path, self._section, wanted)
        self._fetch([ref for ref in wanted.values() if isinstance(ref, SecretRef)])
        resolved = self._replaced(substituted, path, wanted)
        self._learn(credentials_in(resolved))
        return resolved

    def on_found(self, listener: Callable[[Iterable[str]], None]) -> None:
        """Call ``listener`` with the secrets known by now and with all later ones (for a log's
        mask)."""
        self._listeners.append(listener)
        listener(self._known)

    def hide(self, text: str) -> str:
        """``text`` without any secret known by now."""
        for value in sorted(self._known, key=len, reverse=True):
            text = text.replace(value, MASKED)
        return text

    def warnings(self, path: str) -> list[str]:
        """One sentence for each missing value at ``path`` or below it."""
        return _below(path, {**self.missing, **self.failures})

    def reference_warnings(self, path: str) -> list[str]:
        """The same for references only."""
        return _below(path, self.failures)

    def explain(self, text: str) -> str:
        """``text`` without any secret known by now and, if it names a path without a value, with
        the reason. Paths may be relative to a plugin's configuration."""
        text = self.hide(text)
        for path, reason in {**self.missing, **self.failures}.items():
            names = [path, re.sub(r"^plugins\.entries\.[^.]+\.config\.", "", path)]
            if reason not in text and any(_names(name, text) for name in names):
                return f"{text} ({path}: {reason})"
        return text

    def _learn(self, values: Iterable[str]) -> None:
        texts = {value.strip() for value in values}
        fresh = {text for text in texts if len(text) >= MIN_MASKED} - self._known
        fresh.discard(UNAVAILABLE)
        self._known |= fresh
        for listener in self._listeners:
            listener(fresh)

    def _replaced(
        self, value: Any, path: str, wanted: Mapping[str, SecretRef | SecretError]
    ) -> Any:
        if path in wanted:
            ref = wanted[path]
            found = self._found[ref] if isinstance(ref, SecretRef) else ref
            if isinstance(found, str):
                self._learn([found])
                return found
            self.failures[path] = str(found)
            return UNAVAILABLE
        if isinstance(value, list):
            return [self._replaced(v, f"{path}[{i}]", wanted) for i, v in enumerate(value)]
        if isinstance(value, dict):
            return {k: self._replaced(v, f"{path}.{k}", wanted) for k, v in value.items()}
        return value

    # --- asking the providers ---------------------------------------------------------------

    def _fetch(self, refs: Iterable[SecretRef]) -> None:
        groups: dict[tuple[str, str], list[str]] = {}
        for ref in dict.fromkeys(refs):
            if ref not in self._found:
                groups.setdefault((ref.source, ref.provider), []).append(ref.id)
        for (source, provider), ids in groups.items():
            try:
                answers = self._ask(source, provider, ids)
            except SecretError as error:
                answers = dict.fromkeys(ids, error)
            for secret_id in ids:
                self._found[SecretRef(source, provider, secret_id)] = answers[secret_id]

    def _ask(self, source: str, name: str, ids: list[str]) -> Mapping[str, str | SecretError]:
        provider = self._section.providers.get(name)
        if provider is None and source == "env" and name == self._section.defaults.env:
            provider = EnvProvider(source="env")
        if provider is None:
            raise SecretError(f"secrets.providers.{name} is not configured")
        if provider.source != source:
            raise SecretError(
                f"secrets.providers.{name} has the source {provider.source!r}, the reference"
                f" {source!r}"
            )
        if isinstance(provider, FileProvider):
            return read_secrets(provider, ids, self._environ.get("HOME"))
        if isinstance(provider, ExecProvider):
            return ask_program(name, provider, ids, self._environ)
        return {variable: self._variable(provider, name, variable) for variable in ids}

    def _variable(self, provider: EnvProvider, name: str, variable: str) -> str | SecretError:
        if provider.allowlist is not None and variable not in provider.allowlist:
            return SecretError(f"{variable} is not in secrets.providers.{name}.allowlist")
        value = self._environ.get(variable, "")
        return value if value.strip() else SecretError(why_missing(variable, self._environ))


def _below(path: str, reasons: Mapping[str, str]) -> list[str]:
    return [
        f"{failed}: {reason}"
        for failed, reason in reasons.items()
        if failed == path or failed.startswith((f"{path}.", f"{path}["))
    ]


def _collect(
    value: Any, path: str, section: SecretsSection, wanted: dict[str, SecretRef | SecretError]
) -> None:
    """The references in ``value``, by path."""
    if isinstance(value, str):
        short = _SHORT.fullmatch(value)
        if short is not None:
            wanted[path] = SecretRef("env", section.defaults.env, short.group(1))
        elif value.startswith(_REJECTED):
            wanted[path] = SecretError(f'write "${{NAME}}" instead of "{_REJECTED}NAME"')
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _collect(item, f"{path}[{index}]", section, wanted)
    elif is_reference(value):
        try:
            wanted[path] = parse_reference(value, section.defaults)
        except SecretError as error:
            wanted[path] = error
    elif isinstance(value, dict):
        for key, item in value.items():
            _collect(item, f"{path}.{key}", section, wanted)


def _names(path: str, text: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(path)}(?![\w.]*\w)", text) is not None
