"""Parameters of RPC methods and the tool: texts are stripped, and a blank one counts as absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from voicecall.errors import InvalidRequest
from voicecall.model import CallMode

__all__ = ["Params", "mode_in", "required", "text_in"]

Params = Mapping[str, Any]


def text_in(params: Params, name: str) -> str | None:
    value = params.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} must be Unicode text (in a terminal: UTF-8)") from None
    return value.strip() or None


def required(params: Params, name: str) -> str:
    value = text_in(params, name)
    if value is None:
        raise InvalidRequest(f"{name} is required")
    return value


def mode_in(params: Params) -> CallMode | None:
    value = text_in(params, "mode")
    if value is None:
        return None
    try:
        return CallMode(value)
    except ValueError:
        raise InvalidRequest("mode must be notify or conversation") from None
