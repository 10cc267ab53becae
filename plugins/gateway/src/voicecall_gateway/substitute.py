"""``${VAR}`` in configuration strings.

``${NAME}`` with an upper-case name becomes the variable's value, anywhere in any string;
``$${NAME}`` stands for the text ``${NAME}``. A variable that is not set, or empty, leaves the text
as it is and adds a warning. The object ``{source: "env", id: "NAME"}`` means the same as the string
``"${NAME}"``. Values are not looked at again after the replacement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["substitute", "substitute_text", "unresolved_names"]

_NAME = r"[A-Z][A-Z0-9_]{0,127}"
_REFERENCE = re.compile(rf"(\$?)\$\{{({_NAME})\}}")
_ENV_REF_KEYS = frozenset({"source", "provider", "id"})


def substitute(value: Any, environ: Mapping[str, str], warnings: list[str], path: str = "") -> Any:
    """A copy of ``value`` with its references replaced; ``warnings`` collects one sentence for
    each that could not be."""
    if isinstance(value, str):
        return substitute_text(value, environ, warnings, path)
    if isinstance(value, list):
        return [
            substitute(item, environ, warnings, f"{path}[{index}]")
            for index, item in enumerate(value)
        ]
    if isinstance(value, dict):
        name = _env_ref(value)
        if name is not None:
            return substitute_text(f"${{{name}}}", environ, warnings, path)
        return {
            key: substitute(item, environ, warnings, f"{path}.{key}" if path else str(key))
            for key, item in value.items()
        }
    return value


def substitute_text(
    text: str, environ: Mapping[str, str], warnings: list[str], path: str = ""
) -> str:
    """One string with its references replaced."""

    def replace(match: re.Match[str]) -> str:
        escape, name = match.groups()
        if escape:
            return f"${{{name}}}"
        value = environ.get(name, "")
        if value:
            return value
        warnings.append(f"{path or 'value'}: the environment variable {name} is not set")
        return match.group()

    return _REFERENCE.sub(replace, text)


def unresolved_names(text: str) -> list[str]:
    """Names of variables that ``text`` still refers to."""
    return [name for escape, name in _REFERENCE.findall(text) if not escape]


def _env_ref(value: Mapping[str, Any]) -> str | None:
    """The variable's name where ``value`` is a reference to one."""
    if value.get("source") != "env" or not _ENV_REF_KEYS.issuperset(value):
        return None
    name = value.get("id")
    return name if isinstance(name, str) and re.fullmatch(_NAME, name) else None
