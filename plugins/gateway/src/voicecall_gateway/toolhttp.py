"""``POST /tools/invoke``: call one of the tools for agents over HTTP (OpenClaw's endpoint).

Body: ``{tool | name, action?, args?, sessionKey?, agentId?, idempotencyKey?, dryRun?}``; ``name``
takes precedence over ``tool``, ``action`` becomes ``args.action``. Answers: 200 ``{ok: true,
result}``, otherwise ``{ok: false, error: {type, message}}``.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import anyio
import anyio.to_thread
from pydantic import Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from voicecall.configuring import ConfigModel
from voicecall.errors import CallError, VoicecallError
from voicecall.hosting import ToolCall, ToolSpec
from voicecall.wording import wording

from .auth import ADMIN, expand_scopes, origin_allowed, token_matches
from .host import Host
from .throttle import Throttle

__all__ = ["MAX_BODY", "ToolEndpoint"]

MAX_BODY = 2 * 1024 * 1024
BODY_SECONDS = 15.0
MAX_IN_FLIGHT = 64

_log = logging.getLogger("voicecall.gateway.tools")


class _Refused(Exception):
    """An error response."""

    def __init__(
        self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = dict(headers or {})
        super().__init__(message)


class _Body(ConfigModel):
    tool: str | None = Field(default=None, max_length=200)
    name: str | None = Field(default=None, max_length=200)
    action: str | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    session_key: str | None = None
    agent_id: str | None = None
    idempotency_key: str | None = None
    dry_run: bool = False


class ToolEndpoint:
    """Answers requests. ``denied`` says whether a tool is forbidden over HTTP; ``token`` is the
    required bearer token (None: no authentication)."""

    def __init__(
        self,
        host: Host,
        *,
        token: str | None,
        throttle: Throttle,
        bind: str,
        denied: Callable[[str], bool],
    ) -> None:
        self.closing = False
        self._host = host
        self._token = token
        self._bind = bind
        self._denied = denied
        self._throttle = throttle
        self.in_flight = 0
        """Requests whose tools are running."""
        self._idle = anyio.Event()

    async def answer(self, request: Request) -> Response:
        try:
            self._admit(request)
            self._check_room()
            body = await _read(request)
            # Other requests, or a stop, may have come meanwhile.
            self._check_room()
            self.in_flight += 1
            try:
                return _Answer({"ok": True, "result": await self._invoke(body)})
            finally:
                self.in_flight -= 1
                self._idle.set()
        except _Refused as refused:
            return _refusal(refused)
        except RecursionError:
            # The body could be parsed, but is nested too deeply to be encoded further down the
            # stack.
            return _refusal(_too_deep())
        except ClientDisconnect:
            return Response(status_code=400)

    async def wait_idle(self) -> None:
        """Wait until no tool is running."""
        while self.in_flight:
            self._idle = anyio.Event()
            await self._idle.wait()

    def _admit(self, request: Request) -> None:
        headers = request.headers
        if not origin_allowed(headers.get("origin"), headers.get("host"), self._bind):
            raise _Refused(403, "forbidden", "this origin may not use tools")
        if self._token is not None:
            client = request.client.host if request.client is not None else ""
            wait = self._throttle.wait(client)
            if wait > 0:
                text = "too many requests with a wrong token"
                raise _Refused(429, "rate_limited", text, {"Retry-After": str(wait)})
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not token_matches(self._token, given):
                self._throttle.failed(client)
                text = "the gateway's token is required: Authorization: Bearer <token>"
                raise _Refused(401, "unauthorized", text, {"WWW-Authenticate": "Bearer"})

    def _check_room(self) -> None:
        if self.closing:
            raise _Refused(503, "unavailable", "the gateway is stopping")
        if self.in_flight >= MAX_IN_FLIGHT:
            raise _Refused(429, "rate_limited", "too many tools are running", {"Retry-After": "1"})

    async def _invoke(self, body: _Body) -> Any:
        name = (body.name or body.tool or "").strip()
        if not name:
            raise _Refused(400, "invalid_request", "tool is required")
        tool = self._host.tools.get(name)
        if tool is None or self._denied(name):
            # The same text for both: a denied tool must look like one that does not exist.
            raise _Refused(404, "not_found", f"tool not available: {name}")
        arguments = body.args if body.action is None else {**body.args, "action": body.action}
        try:
            problem = await anyio.to_thread.run_sync(_problem, tool, arguments)
        except Exception:  # noqa: BLE001 (a stranger's schema)
            _log.exception("the parameters of the tool %s are not a valid JSON schema", name)
            raise _Refused(500, "internal_error", "the tool failed, see the log") from None
        if problem:
            raise _Refused(400, "invalid_request", problem)
        if body.dry_run:
            return {"dryRun": True, "tool": name, "args": arguments}
        call = ToolCall(
            expand_scopes([ADMIN]), body.session_key, body.agent_id, body.idempotency_key
        )
        try:
            result = await tool.handler(arguments, call)
            # A result that cannot be encoded is the tool's fault: find out here.
            json.dumps(result, allow_nan=False)
        except CallError as error:
            raise _Refused(400, "tool_error", str(error)) from None
        except VoicecallError as error:
            # A vendor's error may quote its key.
            text = self._host.hide(str(error))
            raise _Refused(500, "tool_error", text) from None
        except (Exception, SystemExit):  # noqa: BLE001 (a stranger's tool)
            _log.exception("the tool %s failed", name)
            raise _Refused(500, "internal_error", "the tool failed, see the log") from None
        return result


class _Answer(JSONResponse):
    """Encoded in ASCII, because a JSON string may contain lone surrogates, which UTF-8 cannot
    encode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


def _refusal(refused: _Refused) -> _Answer:
    error = {"type": refused.kind, "message": refused.message}
    return _Answer({"ok": False, "error": error}, refused.status, headers=refused.headers)


def _too_deep() -> _Refused:
    return _Refused(400, "invalid_request", "the body is nested too deeply")


def _finite(text: str) -> float:
    """``text`` as a number. 1e999 is valid JSON but would become infinity, which is not."""
    number = float(text)
    if math.isinf(number):
        raise _Refused(400, "invalid_request", f"the number {text[:32]} is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def _read(request: Request) -> _Body:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > MAX_BODY:
        raise _Refused(413, "too_large", f"the body is larger than {MAX_BODY} bytes")
    data = bytearray()
    with anyio.move_on_after(BODY_SECONDS) as patience:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY:
                raise _Refused(413, "too_large", f"the body is larger than {MAX_BODY} bytes")
    if patience.cancelled_caught:
        raise _Refused(408, "timeout", "the body did not arrive in time")
    try:
        value = json.loads(bytes(data) or b"{}", parse_float=_finite, parse_constant=_no_constant)
        return _Body.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _Refused(400, "invalid_request", f"{place or 'body'}: {wording(first)}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise _Refused(400, "invalid_request", "the body is not valid JSON") from None


def _problem(tool: ToolSpec, arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with the arguments, if anything. The validator is imported on first use."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(tool.parameters)
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(arguments))
    except RecursionError:
        return "the arguments cannot be checked"
    if error is None:
        return None
    place = ".".join(["args", *(str(part) for part in error.absolute_path)])
    return f"{place}: {error.message[:300]}"
