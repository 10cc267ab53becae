"""Parameters of RPC methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from voicecall.errors import InvalidRequest
from voicecall.wording import did_you_mean

__all__ = ["refuse_unknown"]

_SHOWN = 64
"""Characters of a name; a stranger's may have a million."""


def refuse_unknown(params: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises :exc:`voicecall.errors.InvalidRequest` for a parameter that is none of ``known``: a
    misspelt one would have no effect, and nobody would be told."""
    for name in params:
        if name not in known:
            shown = name[:_SHOWN]
            raise InvalidRequest(f"unknown parameter {shown!r}{did_you_mean(shown, known)}")
