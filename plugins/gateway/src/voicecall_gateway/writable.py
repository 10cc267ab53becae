"""Checks whether this user could write a gateway's files. Nothing is created, locked or changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["why_unwritable"]

_GIVE = "give it to the gateway's user (chown)"


def why_unwritable(directory: Path, files: Iterable[str] = ()) -> str | None:
    """Why ``files`` in ``directory`` cannot be written, and what to do; None if they can. It must
    be possible to create those that do not exist."""
    there = directory
    while not os.path.lexists(there):
        there = there.parent
    if not os.path.isdir(there):
        return f"{there} is not a directory"
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written: {_GIVE}"
    for file in (directory / name for name in files):
        if not os.path.lexists(file):
            continue
        if not os.access(file, os.R_OK | os.W_OK):
            return f"{file} cannot be read and written: {_GIVE}"
        if not file.is_file():
            return f"{file} is not a file: move it away"
        # Its mode is set when it is opened, which only the owner may do.
        if os.geteuid() not in (0, file.stat().st_uid):
            return f"{file} belongs to another user: {_GIVE}"
    return None
