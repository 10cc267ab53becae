"""References to secrets in a configuration, and the section ``secrets``.

A reference is a string ``"$NAME"`` (``"${NAME}"`` is handled by :mod:`.substitute`), or an object
``{source, provider, id}`` that names an environment variable, a value in a file, or one that a
program supplies. The file or program is configured under ``secrets.providers.<provider>``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from voicecall.configuring import ConfigModel

__all__ = [
    "UNAVAILABLE",
    "EnvProvider",
    "ExecProvider",
    "FileProvider",
    "SecretDefaults",
    "SecretError",
    "SecretRef",
    "SecretsSection",
    "is_reference",
    "parse_reference",
]

UNAVAILABLE = "${SECRET_UNAVAILABLE}"
"""Replaces a secret that is not available. As a placeholder it never counts as a credential."""
SOURCES = ("env", "file", "exec", "store")

_KEYS = frozenset({"source", "provider", "id"})
_PROVIDER = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,127}")
_EXEC_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,255}")
_POINTER = re.compile(r"(/([^~/]|~[01])*)+")


class SecretError(Exception):
    """A secret is not available. The message is for people and contains no secret."""


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A well-formed reference."""

    source: str
    provider: str
    id: str


class EnvProvider(ConfigModel):
    """Environment variables; if ``allowlist`` is set, only those in it."""

    source: Literal["env"]
    allowlist: tuple[str, ...] | None = None


class FileProvider(ConfigModel):
    """A file that only its owner can read: a JSON object (ids are JSON pointers, RFC 6901) or a
    single value (its id is ``value``). ``allowInsecurePath`` accepts files that others can read,
    as container secrets often are."""

    source: Literal["file"]
    path: str = Field(min_length=1)
    mode: Literal["json", "singleValue"] = "json"
    timeout_ms: PositiveInt = 5000
    max_bytes: PositiveInt = 1024 * 1024
    allow_insecure_path: bool = False


class ExecProvider(ConfigModel):
    """A program that gets its request on stdin and answers on stdout. Its environment contains only
    ``env`` and the variables that ``passEnv`` names."""

    source: Literal["exec"]
    command: str = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    pass_env: tuple[str, ...] = ()
    trusted_dirs: tuple[str, ...] = ()
    json_only: bool = True
    timeout_ms: PositiveInt = 5000
    no_output_timeout_ms: PositiveInt | None = None
    max_output_bytes: PositiveInt = 1024 * 1024


class SecretDefaults(ConfigModel):
    """By source, the provider for references that do not name one."""

    env: str = "default"
    file: str = "default"
    exec: str = "default"
    store: str = "default"


class SecretsSection(ConfigModel):
    """``secrets``."""

    providers: Mapping[
        str, Annotated[EnvProvider | FileProvider | ExecProvider, Field(discriminator="source")]
    ] = Field(default_factory=dict)
    defaults: SecretDefaults = SecretDefaults()


def is_reference(value: Any) -> bool:
    """Whether an object is meant as a reference, well-formed or not."""
    if not isinstance(value, Mapping) or not _KEYS.issuperset(value) or "id" not in value:
        return False
    # With all three keys it is certainly a reference, even if its source is misspelt.
    return value.get("source") in SOURCES or len(value) == len(_KEYS)


def parse_reference(value: Mapping[str, Any], defaults: SecretDefaults) -> SecretRef:
    """Parse a reference. Raises :exc:`SecretError` if it is malformed or its source is
    ``store``."""
    source, secret_id = value["source"], value["id"]
    if source not in SOURCES:
        raise SecretError("the reference's source must be 'env', 'file' or 'exec'")
    if source == "store":
        raise SecretError(
            "secrets of the source 'store' are kept by another program; use 'env', 'file' or 'exec'"
        )
    provider = value.get("provider", getattr(defaults, source))
    if not isinstance(provider, str) or not _PROVIDER.fullmatch(provider):
        raise SecretError("the reference's provider must be a name such as 'default'")
    if not isinstance(secret_id, str) or not _well_formed(source, secret_id):
        wanted = {
            "env": "the name of a variable such as API_KEY",
            "file": "a JSON pointer such as /speech/apiKey, or 'value'",
            "exec": "a path such as voice/speech#key without . and .. in it",
        }[source]
        raise SecretError(f"the reference's id must be {wanted}")
    return SecretRef(source, provider, secret_id)


def _well_formed(source: str, secret_id: str) -> bool:
    if source == "env":
        return _VARIABLE.fullmatch(secret_id) is not None
    if source == "file":
        return secret_id == "value" or _POINTER.fullmatch(secret_id) is not None
    if _EXEC_ID.fullmatch(secret_id) is None:
        return False
    return not {".", ".."} & set(re.split(r"[/#]", secret_id))
