"""Frames of the gateway's WebSocket protocol, version 4.

Frames are JSON objects as text, without unknown keys: ``req`` from the client, ``res`` and
``event`` from the server. The server's first frame is the event ``connect.challenge``, the
client's first frame the request ``connect``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from voicecall.wording import wording

__all__ = [
    "FORBIDDEN",
    "INVALID_REQUEST",
    "PROTOCOL",
    "UNAVAILABLE",
    "ConnectParams",
    "FrameError",
    "Request",
    "encode_error",
    "encode_event",
    "encode_result",
    "parse_connect",
    "parse_request",
]

PROTOCOL = 4
INVALID_REQUEST = "INVALID_REQUEST"
UNAVAILABLE = "UNAVAILABLE"
FORBIDDEN = "FORBIDDEN"


class FrameError(Exception):
    """A frame that violates the protocol. ``request_id`` is set if it can be answered."""

    def __init__(self, message: str, request_id: str | None = None) -> None:
        self.request_id = request_id
        super().__init__(message)


class _Frame(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True
    )


class Request(_Frame):
    """``{type: "req", id, method, params?, traceparent?}``."""

    type: Literal["req"]
    id: str = Field(min_length=1, max_length=256)
    method: str = Field(min_length=1, max_length=256)
    params: dict[str, Any] = Field(default_factory=dict)
    traceparent: str | None = None


class _Client(_Frame):
    id: str
    version: str
    platform: str
    mode: str
    display_name: str | None = None
    instance_id: str | None = None


class _Auth(_Frame):
    token: str | None = Field(default=None, repr=False)
    password: str | None = Field(default=None, repr=False)
    device_token: str | None = Field(default=None, repr=False)
    bootstrap_token: str | None = Field(default=None, repr=False)


class ConnectParams(_Frame):
    """Parameters of ``connect``. Device identities are accepted but not used: a port that is open
    to the network requires the token."""

    min_protocol: int
    max_protocol: int
    client: _Client
    role: str = "operator"
    scopes: list[str] = Field(default_factory=list)
    caps: list[str] = Field(default_factory=list)
    commands: list[str] = Field(default_factory=list)
    permissions: dict[str, Any] = Field(default_factory=dict)
    auth: _Auth = _Auth()
    device: dict[str, Any] | None = None
    locale: str | None = None
    user_agent: str | None = None
    path_env: str | None = None


def parse_request(text: str) -> Request:
    """Parse a client frame. Raises :exc:`FrameError` and nothing else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise FrameError("the frame is not JSON") from None
    if not isinstance(value, dict):
        raise FrameError("the frame is not an object")
    try:
        return Request.model_validate(value)
    except ValidationError as error:
        request_id = value.get("id")
        known = isinstance(request_id, str) and 0 < len(request_id) <= 256
        raise FrameError(f"invalid frame: {_first(error)}", request_id if known else None) from None


def parse_connect(params: Mapping[str, Any]) -> ConnectParams:
    """Parse the parameters of ``connect``. Raises :exc:`FrameError`."""
    try:
        return ConnectParams.model_validate(params)
    except ValidationError as error:
        raise FrameError(f"invalid connect params: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {wording(first)}"


def encode_result(request_id: str, payload: Mapping[str, Any]) -> str:
    """Raises TypeError or ValueError for a payload that JSON cannot represent."""
    return json.dumps(
        {"type": "res", "id": request_id, "ok": True, "payload": payload}, allow_nan=False
    )


def encode_error(
    request_id: str,
    code: str,
    message: str,
    *,
    details: Mapping[str, Any] | None = None,
    retryable: bool | None = None,
) -> str:
    error: dict[str, Any] = {"code": code, "message": message}
    if details is not None:
        error["details"] = details
    if retryable is not None:
        error["retryable"] = retryable
    return json.dumps({"type": "res", "id": request_id, "ok": False, "error": error})


def encode_event(event: str, payload: Mapping[str, Any], seq: int | None = None) -> str:
    """Raises TypeError or ValueError for a payload that JSON cannot represent."""
    frame: dict[str, Any] = {"type": "event", "event": event, "payload": payload}
    if seq is not None:
        frame["seq"] = seq
    return json.dumps(frame, allow_nan=False)
