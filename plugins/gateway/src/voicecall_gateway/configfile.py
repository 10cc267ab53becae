"""Changing the configuration file: it is replaced atomically, and its old text kept as a backup."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from voicecall.errors import ConfigError

from .json5edit import CannotEdit

__all__ = ["editable_text", "instead", "write_text"]

NEW_FILE_MODE = 0o600


def editable_text(file: Path) -> str:
    """The text to edit; an empty object if the file does not exist. Raises :exc:`CannotEdit` for
    TOML and :exc:`ConfigError` for a file that cannot be read."""
    if file.suffix == ".toml":
        raise CannotEdit(f"{file} is TOML, which voicecall does not edit")
    try:
        # Bytes, because text mode would convert the line endings.
        return file.read_bytes().decode()
    except FileNotFoundError:
        return "{}\n"
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from None


def write_text(file: Path, text: str) -> Path | None:
    """Replace ``file`` atomically, keeping its mode and owner, and return the path of the backup
    (``<name>.bak``), if any. Raises :exc:`ConfigError`; the file is then unchanged."""
    target = file.resolve()
    backup: Path | None = None
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = target.stat() if target.exists() else None
        if about is not None:
            backup = target.with_name(target.name + ".bak")
            _replace(backup, target.read_bytes(), about)
        _replace(target, text.encode(), about)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None
    return backup


def _replace(target: Path, data: bytes, about: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
            os.fchmod(descriptor, NEW_FILE_MODE if about is None else about.st_mode & 0o777)
            if about is not None and (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid()):
                # Only root may change the owner; otherwise the file belongs to this user.
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, about.st_uid, about.st_gid)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def instead(
    error: CannotEdit, edits: Iterable[tuple[Sequence[str], Any]], file: Path
) -> ConfigError:
    """An error that says what to write by hand, for a file that could not be edited."""
    wanted = ", ".join(f"{'.'.join(path)} = {json.dumps(value)}" for path, value in edits)
    why = str(error).removeprefix(f"{file} ")
    return ConfigError(f"{file}: {why}; write it yourself: {wanted}")
