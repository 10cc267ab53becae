"""The RPC server of ``/rpc``: connections, dispatch of requests, and events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup
from starlette.websockets import WebSocket

from voicecall.errors import CallError, MissingScope, ProviderError, VoicecallError
from voicecall.hosting import RpcCall, RpcMethod
from voicecall.seam import Seam

from .auth import READ, WRITE
from .connection import Connection
from .frames import (
    FORBIDDEN,
    INVALID_REQUEST,
    PROTOCOL,
    UNAVAILABLE,
    Request,
    encode_error,
    encode_result,
)
from .host import Host
from .throttle import Throttle

__all__ = ["MAX_PAYLOAD", "TICK_SECONDS", "RpcServer"]

MAX_PAYLOAD = 1024 * 1024
MAX_BUFFERED = 50 * 1024 * 1024
TICK_SECONDS = 15
OWN_EVENTS = ("connect.challenge", "shutdown", "tick")

_log = logging.getLogger("voicecall.gateway.rpc")


class RpcServer:
    """Connections and dispatch. Requests run concurrently in ``tasks``; a client that disconnects
    does not cancel its requests."""

    def __init__(
        self,
        host: Host,
        tasks: TaskGroup,
        *,
        token: str | None,
        throttle: Throttle,
        version: str,
        absent: Callable[[], Sequence[str]],
    ) -> None:
        self.seam: Seam = host.seam
        self.token = token
        self.throttle = throttle
        self._host = host
        self._tasks = tasks
        self._version = version
        self._absent = absent
        self._connections: dict[str, Connection] = {}
        self.in_flight = 0
        """Requests that are being worked on."""
        self._idle = anyio.Event()
        self.closing = False
        self._alone = anyio.Event()

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one upgraded socket until it closes."""
        await Connection(websocket, self, self.seam.new_id()).run()

    @contextmanager
    def joined(self, connection: Connection) -> Iterator[None]:
        """Send events to ``connection`` inside of this context."""
        self._connections[connection.id] = connection
        undo = self._host.subscribe(partial(_tell, connection))
        if self.closing:
            connection.finish()
        try:
            yield
        finally:
            undo()
            del self._connections[connection.id]
            if not self._connections:
                self._alone.set()

    def hello(self, connection: Connection) -> Mapping[str, Any]:
        """The payload of the answer to ``connect``."""
        return {
            "type": "hello-ok",
            "protocol": PROTOCOL,
            "server": {"version": self._version, "connId": connection.id},
            "features": {
                "methods": sorted(self._host.methods),
                "events": sorted({*OWN_EVENTS, *self._host.event_names}),
            },
            "snapshot": {},
            "auth": {"role": "operator", "scopes": sorted(connection.scopes)},
            "policy": {
                "maxPayload": MAX_PAYLOAD,
                "maxBufferedBytes": MAX_BUFFERED,
                "tickIntervalMs": TICK_SECONDS * 1000,
            },
        }

    # --- events -----------------------------------------------------------------------------

    async def tick(self) -> None:
        """Send every client, whatever its scopes, a sign of life. Runs until cancelled."""
        while True:
            await anyio.sleep(TICK_SECONDS)
            for connection in tuple(self._connections.values()):
                connection.event("tick", {"ts": self.seam.now_ms()})

    def announce_shutdown(self, reason: str) -> None:
        for connection in tuple(self._connections.values()):
            connection.event("shutdown", {"reason": reason})

    async def wait_idle(self) -> None:
        """Wait until no request is being worked on."""
        while self.in_flight:
            self._idle = anyio.Event()
            await self._idle.wait()

    async def close(self) -> None:
        """Let every connection send what is queued, and close it. The caller limits the time."""
        self.closing = True
        for connection in tuple(self._connections.values()):
            connection.finish()
        while self._connections:
            self._alone = anyio.Event()
            await self._alone.wait()

    # --- requests ---------------------------------------------------------------------------

    def submit(self, connection: Connection, request: Request) -> None:
        """Answer ``request`` later, with exactly one frame."""
        self.in_flight += 1
        self._tasks.start_soon(self._work, connection, request, name=f"rpc {request.method[:64]}")

    async def _work(self, connection: Connection, request: Request) -> None:
        try:
            connection.answer(await self._answer(connection, request))
        finally:
            self.in_flight -= 1
            self._idle.set()

    async def _answer(self, connection: Connection, request: Request) -> str:
        method = self._host.methods.get(request.method)
        if method is None:
            return encode_error(request.id, INVALID_REQUEST, self._unknown(request.method))
        if method.scope not in connection.scopes:
            return _forbidden(request.id, method.scope, f"missing scope: {method.scope}")
        return await self._call(method, connection, request)

    def _unknown(self, method: str) -> str:
        text = f"unknown method: {method}"
        reasons = self._absent()
        # Most likely the plugin that provides the method does not run: say why.
        return f"{text} ({reasons[0]})" if reasons else text

    async def _call(self, method: RpcMethod, connection: Connection, request: Request) -> str:
        try:
            payload = await method.handler(
                request.params, RpcCall(connection.id, connection.scopes)
            )
            return encode_result(request.id, payload)
        except MissingScope as error:
            return _forbidden(request.id, error.scope, str(error))
        except CallError as error:
            return encode_error(request.id, INVALID_REQUEST, str(error))
        except VoicecallError as error:
            # A vendor's error may quote its key, which not every caller may see.
            text = self._host.hide(str(error))
            retryable = error.retryable if isinstance(error, ProviderError) else None
            return encode_error(request.id, UNAVAILABLE, text, retryable=retryable)
        except (Exception, SystemExit):  # noqa: BLE001 (a stranger's handler)
            _log.exception("the RPC method %s failed", method.name)
            return encode_error(request.id, UNAVAILABLE, "internal error")


def _forbidden(request_id: str, scope: str, message: str) -> str:
    details = {"code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope]}
    return encode_error(request_id, FORBIDDEN, message, details=details)


def _tell(connection: Connection, event: str, payload: Mapping[str, Any]) -> None:
    needed = WRITE if event.startswith("plugin.") else READ
    if needed in connection.scopes:
        connection.event(event, payload)
