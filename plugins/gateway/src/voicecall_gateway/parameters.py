"""Checking the parameters of RPC methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from voicecall.errors import InvalidRequest
from voicecall.wording import did_you_mean

__all__ = ["refuse_unknown"]

_SHOWN = 64
"""Characters of a name that an error shows; the name may have a million."""


def refuse_unknown(params: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise :exc:`voicecall.errors.InvalidRequest` for a parameter that is not in ``known``: a
    misspelt one would silently have no effect."""
    for name in params:
        if name not in known:
            shown = name[:_SHOWN]
            raise InvalidRequest(f"unknown parameter {shown!r}{did_you_mean(shown, known)}")
