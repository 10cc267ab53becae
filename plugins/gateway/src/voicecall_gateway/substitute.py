"""``${VAR}`` in configuration strings.

``${NAME}`` with an upper-case name is replaced by the variable's value, anywhere in any string;
``$${NAME}`` stands for the text ``${NAME}``. If a variable is not set or blank, or the name is not
such a name, the text is left unchanged and this is reported. Values are not substituted again.
References to secrets (objects, and strings that consist of ``$NAME``) are left for
:mod:`.secretresolver`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .secretrefs import is_reference

__all__ = ["Missing", "substitute", "substitute_text", "why_missing"]

Missing = list[tuple[str, str]]
"""Path and reason (for people) of everything that could not be replaced."""

_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_REFERENCE = re.compile(r"(\$?)\$\{([^{}]*)\}")
_WRONG_NAME = (
    "the name in ${...} must consist of upper-case letters, digits and _, and begin with a letter;"
    " write $${...} for the text itself"
)
"""Does not quote the name, which may be a secret that somebody wrote there."""


def substitute(value: Any, environ: Mapping[str, str], missing: Missing, path: str = "") -> Any:
    """A copy of ``value`` with its variables replaced; those without a value are added to
    ``missing``."""
    if isinstance(value, str):
        return substitute_text(value, environ, missing, path)
    if isinstance(value, list):
        return [
            substitute(item, environ, missing, f"{path}[{index}]")
            for index, item in enumerate(value)
        ]
    if isinstance(value, dict) and not is_reference(value):
        return {
            key: substitute(item, environ, missing, f"{path}.{key}" if path else str(key))
            for key, item in value.items()
        }
    return value


def substitute_text(text: str, environ: Mapping[str, str], missing: Missing, path: str = "") -> str:
    """One string with its variables replaced."""

    def replace(match: re.Match[str]) -> str:
        escape, name = match.groups()
        if escape:
            return f"${{{name}}}"
        known = _NAME.fullmatch(name) is not None
        value = environ.get(name, "") if known else ""
        if value.strip():
            return value
        missing.append((path or "value", why_missing(name, environ) if known else _WRONG_NAME))
        return match.group()

    return _REFERENCE.sub(replace, text)


def why_missing(name: str, environ: Mapping[str, str]) -> str:
    """Why a variable has no value."""
    return f"the environment variable {name} is {'blank' if name in environ else 'not set'}"
