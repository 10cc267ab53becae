"""One client of ``/rpc``: handshake, reading requests, writing frames."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from .auth import expand_scopes, token_matches
from .frames import (
    FORBIDDEN,
    INVALID_REQUEST,
    PROTOCOL,
    ConnectParams,
    FrameError,
    Request,
    encode_error,
    encode_event,
    encode_result,
    parse_connect,
    parse_request,
)
from .outbox import Outbox

if TYPE_CHECKING:
    from .rpc import RpcServer

__all__ = ["HANDSHAKE_SECONDS", "MAX_PRE_AUTH_BYTES", "Connection"]

HANDSHAKE_SECONDS = 15
MAX_PRE_AUTH_BYTES = 64 * 1024
MAX_EVENTS = 256
MAX_UNANSWERED = 128

_log = logging.getLogger("voicecall.gateway.rpc")


class _Refused(Exception):
    """The connection is closed with ``code`` (RFC 6455, section 7.4)."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(reason)


class Connection:
    """One client's socket. Its requests may outlive it: they run in the server's task group."""

    def __init__(self, websocket: WebSocket, server: RpcServer, connection_id: str) -> None:
        self.id = connection_id
        self.scopes: frozenset[str] = frozenset()
        self._socket = websocket
        self._server = server
        self._outbox = Outbox(MAX_EVENTS)
        self._seq = 0
        self._unanswered = 0

    def event(self, event: str, payload: Mapping[str, Any]) -> None:
        """Queue an event. Never blocks; a slow client loses the oldest events and can tell by the
        gaps in ``seq``."""
        self._seq += 1
        self._outbox.put_event(encode_event(event, payload, self._seq))

    def answer(self, frame: str) -> None:
        self._outbox.put_answer(frame)

    def finish(self) -> None:
        """Send what is queued, then close."""
        self._outbox.close()

    async def run(self) -> None:
        """Serve the socket until either side closes it."""
        try:
            await self._socket.accept()
            with anyio.move_on_after(HANDSHAKE_SECONDS) as patience:
                await self._handshake()
            if patience.cancelled_caught:
                raise _Refused(1008, "handshake timeout")
            with self._server.joined(self):
                await self._converse()
        except _Refused as refused:
            await self._close(refused.code, refused.reason)
        except WebSocketDisconnect:
            return

    async def _converse(self) -> None:
        refusals: list[_Refused] = []
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                try:
                    await self._read()
                except _Refused as refused:
                    refusals.append(refused)
                except WebSocketDisconnect:
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(read)
            await self._write()
            tasks.cancel_scope.cancel()
        if refusals:
            raise refusals[0]

    async def _close(self, code: int, reason: str) -> None:
        if self._socket.application_state is WebSocketState.CONNECTED:
            try:
                # A close frame holds a reason of at most 123 bytes.
                text = reason.encode(errors="replace")[:123].decode(errors="ignore")
                await self._socket.close(code, text)
            except (WebSocketDisconnect, OSError):
                # The client has closed it already.
                return

    # --- handshake --------------------------------------------------------------------------

    async def _handshake(self) -> None:
        challenge = {"nonce": self._server.seam.new_id(), "ts": self._server.seam.now_ms()}
        await self._socket.send_text(encode_event("connect.challenge", challenge))
        text = await self._receive()
        if len(text) > MAX_PRE_AUTH_BYTES or len(text.encode()) > MAX_PRE_AUTH_BYTES:
            raise _Refused(1009, "frame too large before authentication")
        try:
            request = parse_request(text)
        except FrameError as error:
            raise _Refused(1008, str(error)) from None
        if request.method != "connect":
            await self._refuse(request, INVALID_REQUEST, "the first request must be connect")
        try:
            params = parse_connect(request.params)
        except FrameError as error:
            await self._refuse(request, INVALID_REQUEST, str(error))
        await self._admit(request, params)

    async def _admit(self, request: Request, params: ConnectParams) -> None:
        if not params.min_protocol <= PROTOCOL <= params.max_protocol:
            await self._refuse(
                request,
                INVALID_REQUEST,
                f"protocol mismatch: this gateway speaks {PROTOCOL}",
                {"expectedProtocol": PROTOCOL},
            )
        if params.role != "operator":
            await self._refuse(request, INVALID_REQUEST, f"unknown role: {params.role[:64]}")
        token = self._server.token
        if token is not None:
            await self._check(request, token, params.auth.token)
        self.scopes = expand_scopes(params.scopes)
        hello = self._server.hello(self)
        await self._socket.send_text(encode_result(request.id, hello))

    async def _check(self, request: Request, token: str, given: str | None) -> None:
        throttle, client = self._server.throttle, self._socket.client
        host = client.host if client is not None else ""
        wait = throttle.wait(host)
        if wait > 0:
            await self._refuse(
                request,
                FORBIDDEN,
                f"unauthorized: too many wrong tokens, wait {wait} s",
                {"code": "AUTH_RATE_LIMITED"},
            )
        if token_matches(token, given):
            return
        throttle.failed(host)
        missing = given is None
        await self._refuse(
            request,
            FORBIDDEN,
            f"unauthorized: gateway token {'missing' if missing else 'mismatch'}",
            {"code": "AUTH_TOKEN_MISSING" if missing else "AUTH_TOKEN_MISMATCH"},
        )

    async def _refuse(
        self, request: Request, code: str, message: str, details: Mapping[str, Any] | None = None
    ) -> NoReturn:
        await self._socket.send_text(encode_error(request.id, code, message, details=details))
        raise _Refused(1008, message)

    # --- frames -----------------------------------------------------------------------------

    async def _receive(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1005)
        text = message.get("text")
        if not isinstance(text, str):
            raise _Refused(1003, "frames are JSON text")
        return text

    async def _read(self) -> None:
        while True:
            text = await self._receive()
            if self._unanswered >= MAX_UNANSWERED:
                raise _Refused(1008, "too many unanswered requests")
            try:
                request = parse_request(text)
            except FrameError as error:
                if error.request_id is None:
                    raise _Refused(1008, str(error)) from None
                self._unanswered += 1
                self.answer(encode_error(error.request_id, INVALID_REQUEST, str(error)))
                continue
            self._unanswered += 1
            self._server.submit(self, request)

    async def _write(self) -> None:
        try:
            while (item := await self._outbox.get()) is not None:
                is_event, frame = item
                await self._socket.send_text(frame)
                if not is_event:
                    self._unanswered -= 1
            await self._close(1001, "the gateway is stopping")
        except WebSocketDisconnect:
            _log.debug("connection %s was gone before its last frame", self.id)
