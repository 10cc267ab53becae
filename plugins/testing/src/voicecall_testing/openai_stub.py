"""A model server on loopback that speaks the Chat Completions protocol.

Protocol: ``POST /v1/chat/completions`` of https://platform.openai.com/docs/api-reference/chat,
streamed (server-sent events of ``chat.completion.chunk`` objects, then ``[DONE]``) or whole.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from voicecall_mock.exchange.server import break_connection, serve_app

__all__ = ["Fault", "ModelReply", "ModelRequest", "OpenAiStub", "ToolUse"]

_TOKEN = re.compile(r"\s*\S+\s*")
_REASONS = {400: "invalid_request_error", 401: "invalid_api_key", 404: "model_not_found"}


class Fault(Enum):
    """What goes wrong. ``MIDWAY``: after half of the tokens."""

    NONE = "none"
    HANG = "hang"
    HANG_MIDWAY = "hang-midway"
    DROP = "drop"
    DROP_MIDWAY = "drop-midway"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The model calls a tool; ``arguments`` is an object, or text as the model would write it."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    @property
    def text(self) -> str:
        arguments = self.arguments
        return arguments if isinstance(arguments, str) else json.dumps(arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """One answer. If ``status`` is not 200, it is an error object with ``code``. ``body`` replaces
    whatever body would have been sent."""

    text: str = ""
    tools: tuple[ToolUse, ...] = ()
    first_delay_ms: float = 0
    token_delay_ms: float = 0
    status: int = 200
    code: str | None = None
    retry_after: float | None = None
    body: bytes | None = None
    fault: Fault = Fault.NONE


@dataclass(slots=True)
class ModelRequest:
    """One request. ``hung_up`` is set when the client closes the connection before the answer is
    complete."""

    body: dict[str, Any]
    headers: dict[str, str]
    hung_up: anyio.Event = field(default_factory=anyio.Event)

    @property
    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.body["messages"]
        return found

    def said(self, role: str) -> list[str]:
        """The texts of one role's messages."""
        return [m["content"] for m in self.messages if m["role"] == role and m.get("content")]

    @property
    def tool_names(self) -> set[str]:
        return {tool["function"]["name"] for tool in self.body.get("tools", ())}


Choose = Callable[[ModelRequest], ModelReply]


class OpenAiStub:
    """The server. It gives ``replies`` in order, then always ``default``, which is a reply or a
    function that chooses one."""

    def __init__(
        self, replies: Iterable[ModelReply] = (), *, default: ModelReply | Choose | None = None
    ) -> None:
        self.replies = deque(replies)
        self.default = default or ModelReply(text="Hello there.")
        self.requests: list[ModelRequest] = []
        self.base_url = ""
        self._changed = anyio.Event()
        self._clients: dict[Any, Scope] = {}
        """The last request of each connection, by the client's host and port."""

    async def requested(self, count: int = 1) -> ModelRequest:
        """Wait for the ``count``-th request."""
        with anyio.fail_after(10):
            while len(self.requests) < count:
                await self._changed.wait()
        return self.requests[count - 1]

    @asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[str]:
        """Listen on loopback; yields the base URL, which ends in ``/v1``. On exit, every connection
        is closed at once, as if the process were killed. May be entered again."""
        app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])
        async with serve_app(app, "127.0.0.1", port) as url:
            self.base_url = f"{url}/v1"
            try:
                yield self.base_url
            finally:
                for scope in self._clients.values():
                    break_connection(scope)

    async def _complete(self, request: Request) -> Response:
        asked = ModelRequest(json.loads(await request.body()), dict(request.headers))
        self.requests.append(asked)
        self._clients[request.client] = request.scope
        self._changed.set()
        self._changed = anyio.Event()
        reply = self._choose(asked)
        if reply.status != 200:
            await anyio.sleep(reply.first_delay_ms / 1000)
            return _error(reply, len(self.requests))
        return _Answer(asked, reply, len(self.requests))

    def _choose(self, asked: ModelRequest) -> ModelReply:
        if self.replies:
            return self.replies.popleft()
        return self.default if isinstance(self.default, ModelReply) else self.default(asked)


def _error(reply: ModelReply, number: int) -> Response:
    code = reply.code or _REASONS.get(reply.status, "error")
    headers = {"x-request-id": f"req-{number}"}
    if reply.retry_after is not None:
        headers["retry-after"] = f"{reply.retry_after:g}"
    if reply.body is not None:
        return Response(reply.body, reply.status, headers)
    error = {"message": f"refused: {code}", "type": code, "param": None, "code": code}
    return JSONResponse({"error": error}, reply.status, headers)


class _Answer(Response):
    """The answer to one request; stops if the client disconnects while it is sent."""

    def __init__(self, asked: ModelRequest, reply: ModelReply, number: int) -> None:
        super().__init__()
        self._asked = asked
        self._reply = reply
        self._number = number
        self._streamed = bool(asked.body.get("stream"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, receive, tasks.cancel_scope)
            await self._send(scope, send)
            tasks.cancel_scope.cancel()

    async def _watch(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        self._asked.hung_up.set()
        scope.cancel()

    async def _send(self, scope: Scope, send: Send) -> None:
        reply = self._reply
        if reply.fault is Fault.DROP:
            break_connection(scope)
            return
        if reply.fault is Fault.HANG:
            await anyio.sleep_forever()
        await anyio.sleep(reply.first_delay_ms / 1000)
        kind = b"text/event-stream" if self._streamed else b"application/json"
        headers = [(b"content-type", kind), (b"x-request-id", b"req-%d" % self._number)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        pieces = list(self._pieces())
        for position, piece in enumerate(pieces):
            if position == (len(pieces) + 1) // 2:
                await self._stumble(scope)
            if position:
                await anyio.sleep(reply.token_delay_ms / 1000)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _stumble(self, scope: Scope) -> None:
        if self._reply.fault is Fault.HANG_MIDWAY:
            await anyio.sleep_forever()
        if self._reply.fault is Fault.DROP_MIDWAY:
            break_connection(scope)

    def _pieces(self) -> Iterable[bytes]:
        if self._reply.body is not None:
            return [self._reply.body]
        return self._events() if self._streamed else [self._whole()]

    def _events(self) -> Generator[bytes, None, None]:
        yield self._event({"role": "assistant", "content": ""})
        for token in _TOKEN.findall(self._reply.text):
            yield self._event({"content": token})
        for index, tool in enumerate(self._reply.tools):
            yield self._event({"tool_calls": [self._tool_call(index, tool)]})
        yield self._event({}, self._finish)
        yield b"data: [DONE]\n\n"

    def _event(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = self._head("chat.completion.chunk") | {"choices": [choice]}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    def _whole(self) -> bytes:
        tools = [self._tool_call(index, tool) for index, tool in enumerate(self._reply.tools)]
        message: dict[str, Any] = {"role": "assistant", "content": self._reply.text or None}
        if tools:
            message["tool_calls"] = tools
        choice = {"index": 0, "message": message, "finish_reason": self._finish}
        return json.dumps(self._head("chat.completion") | {"choices": [choice]}).encode()

    @property
    def _finish(self) -> str:
        return "tool_calls" if self._reply.tools else "stop"

    def _head(self, kind: str) -> dict[str, Any]:
        model = self._asked.body.get("model", "stub")
        return {"id": f"chat-{self._number}", "object": kind, "created": 0, "model": model}

    def _tool_call(self, index: int, tool: ToolUse) -> dict[str, Any]:
        function = {"name": tool.name, "arguments": tool.text}
        call_id = f"call-{self._number}-{index}"
        return {"index": index, "id": call_id, "type": "function", "function": function}
