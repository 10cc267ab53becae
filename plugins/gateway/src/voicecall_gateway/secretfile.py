"""Secrets in files, which are used only if their owner and permissions are safe."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .secretrefs import FileProvider, SecretError

__all__ = ["read_secrets"]


def read_secrets(
    provider: FileProvider, ids: Sequence[str], home: str | None
) -> Mapping[str, str | SecretError]:
    """A value, or why there is none, for each id. Raises :exc:`SecretError` if the file as a whole
    cannot be used. ``home`` replaces a leading ``~``."""
    text = _read(provider, home)
    if provider.mode == "singleValue":
        return {secret_id: _single(text, secret_id) for secret_id in ids}
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        raise SecretError(f"{provider.path} is not valid JSON") from None
    return {secret_id: _at(tree, secret_id, provider.path) for secret_id in ids}


def _single(text: str, secret_id: str) -> str | SecretError:
    if secret_id != "value":
        return SecretError("the id must be 'value': the file holds a single value")
    value = text.rstrip("\r\n")
    return value or SecretError("the file is empty")


def _at(tree: Any, pointer: str, path: str) -> str | SecretError:
    if pointer == "value":
        return SecretError(f"the id must be a JSON pointer: {path} holds JSON")
    current = tree
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(current, dict) and key in current:
            current = current[key]
        elif isinstance(current, list) and key.isdecimal() and int(key) < len(current):
            current = current[int(key)]
        else:
            return SecretError(f"{path} has nothing at {pointer}")
    if not isinstance(current, str) or not current:
        return SecretError(f"{path} has no non-empty string at {pointer}")
    return current


def _read(provider: FileProvider, home: str | None) -> str:
    """The text of the file, read in a thread because a network file can block for ever."""
    path = Path(provider.path)
    if home and provider.path.startswith("~/"):
        path = Path(home + provider.path[1:])
    if not path.is_absolute():
        raise SecretError(f"{provider.path} must be an absolute path")
    outcome: list[str | SecretError] = []

    def work() -> None:
        try:
            outcome.append(_checked(path, provider))
        except SecretError as error:
            outcome.append(error)
        except OSError as error:
            outcome.append(SecretError(f"{path} cannot be read: {error.strerror}"))
        except ValueError:
            outcome.append(SecretError("the path contains an invalid character"))

    thread = threading.Thread(target=work, name="secret file", daemon=True)
    thread.start()
    thread.join(provider.timeout_ms / 1000)
    if not outcome:
        raise SecretError(f"{path} could not be read within {provider.timeout_ms} ms")
    if isinstance(outcome[0], SecretError):
        raise outcome[0]
    return outcome[0]


def _checked(path: Path, provider: FileProvider) -> str:
    # Opened without blocking, in case it is a named pipe, and checked after opening, so that the
    # checks apply to the file that is read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise SecretError(f"{path} is not a regular file")
        if about.st_uid not in (os.geteuid(), 0):
            raise SecretError(f"{path} belongs to another user")
        if about.st_mode & 0o022:
            raise SecretError(f"{path} can be written by others: chmod 600 it")
        if about.st_mode & 0o055 and not provider.allow_insecure_path:
            raise SecretError(f"{path} can be read by others: chmod 600 it")
        data = stream.read(provider.max_bytes + 1)
    if len(data) > provider.max_bytes:
        raise SecretError(f"{path} is larger than {provider.max_bytes} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SecretError(f"{path} is not UTF-8 text") from None
