"""The admin port: ``/healthz``, ``/readyz``, ``/tools/invoke`` and the WebSocket ``/rpc`` on one
socket."""

from __future__ import annotations

import contextlib
import errno
import http.client
import ipaddress
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from voicecall.errors import VoicecallError

from .auth import origin_allowed
from .heads import BoundedHeads
from .rpc import MAX_PAYLOAD, RpcServer
from .sections import url_host
from .toolhttp import MAX_BODY, ToolEndpoint

__all__ = ["SERVICE", "AdminServer", "bind_port", "make_app", "port_problem"]

SERVICE = "voicecall-gateway"
PROBE_SECONDS = 2.0
HEAD_SECONDS = 10.0
MAX_HEAD = 64 * 1024
MAX_BEHIND_HEAD = 2 * MAX_BODY
PING_SECONDS = 20.0
MAX_UNREAD_PONGS = 100


async def bind_port(bind: str, port: int) -> socket.socket:
    """A listening socket (port 0: any free port). Raises :exc:`VoicecallError`; if the port is
    taken, the error says whether another gateway has it."""
    try:
        return socket.create_server((bind, port), family=_family(bind), backlog=128)
    except OSError as error:
        text = await anyio.to_thread.run_sync(_why_not, bind, port, error)
        if text is None:
            text = f"a voicecall gateway is already running on {url_host(bind)}:{port}"
        raise VoicecallError(text) from None


def port_problem(bind: str, port: int) -> str | None:
    """Why no gateway can listen there; None if one could, or already does. The port is bound for a
    moment, but accepts no connections."""
    try:
        with socket.socket(_family(bind)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((bind, port))
    except OSError as error:
        return _why_not(bind, port, error)
    return None


def _family(bind: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ipaddress.ip_address(bind).version == 6 else socket.AF_INET


def _why_not(bind: str, port: int, error: OSError) -> str | None:
    """What ``error`` says about the port; None if it is another gateway's."""
    if error.errno != errno.EADDRINUSE:
        # Not error.strerror, to which Python may have added the address.
        reason = os.strerror(error.errno) if error.errno else str(error)
        return f"cannot listen on {bind} port {port} (gateway.bind, gateway.port): {reason}"
    if _is_gateway(url_host(bind), port):
        return None
    return f"port {port} on {bind} is in use by another program: stop it or set gateway.port"


def _is_gateway(host: str, port: int) -> bool:
    """Whether ``/healthz`` answers like a voicecall gateway."""
    connection = http.client.HTTPConnection(host.strip("[]"), port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/healthz")
        body = json.loads(connection.getresponse().read(4096))
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return isinstance(body, dict) and body.get("service") == SERVICE


def make_app(
    rpc: RpcServer,
    tools: ToolEndpoint,
    readiness: Callable[[], tuple[Sequence[str], Sequence[str]]],
    *,
    bind: str,
    version: str,
) -> Starlette:
    """The ASGI application of the admin port. ``readiness()`` returns why the gateway is not ready,
    and which changes of the configuration wait to be applied."""

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"ok": True, "service": SERVICE, "version": version})

    async def readyz(_: Request) -> JSONResponse:
        reasons, waiting = readiness()
        state: dict[str, Any] = {"ready": not reasons, "reasons": list(reasons)}
        if waiting:
            state["waiting"] = list(waiting)
        return JSONResponse(state, status_code=503 if reasons else 200)

    async def rpc_socket(websocket: WebSocket) -> None:
        headers = websocket.headers
        if not origin_allowed(headers.get("origin"), headers.get("host"), bind):
            denial = JSONResponse({"error": "this origin may not connect"}, status_code=403)
        elif rpc.closing:
            denial = JSONResponse({"error": "the gateway is stopping"}, status_code=503)
        else:
            await rpc.serve(websocket)
            return
        await websocket.send_denial_response(denial)

    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/tools/invoke", tools.answer, methods=["POST"]),
            WebSocketRoute("/rpc", rpc_socket),
        ]
    )
    # A redirect for a trailing slash would send the client, and its token, to whatever host the
    # request names, and behind a TLS proxy to an http URL.
    app.router.redirect_slashes = False
    return app


class BoundedSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol without some of its weaknesses.

    For a peer that reads nothing, uvicorn would buffer pongs without limit and wait for ever to
    send its last frame. It would also log as errors what strangers can cause: a refused handshake,
    text that is not UTF-8, and a message that the gateway sends after the close.
    """

    _unread_pongs = 0

    def resume_writing(self) -> None:
        self._unread_pongs = 0
        super().resume_writing()

    def handle_ping(self) -> None:
        super().handle_ping()
        if not self.writable.is_set():
            self._unread_pongs += 1
            if self._unread_pongs > MAX_UNREAD_PONGS:
                self.transport.abort()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        if not self.writable.is_set():
            self.transport.abort()

    async def send(self, message: Any) -> None:
        await self.writable.wait()
        if self.close_sent and self.initial_response is None:
            # The protocol itself has closed: for what the client sent, or a ping that it did not
            # answer.
            raise ClientDisconnected
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            # The refusal is sent, and nothing else follows.
            self.handshake_complete = True

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                # A close frame that came with it has been answered already.
                if self.conn.close_rcvd is None:
                    self.conn.send_close(1007)
                    self.handle_parser_exception()
                return
        super().send_receive_event_to_app()


class AdminServer(uvicorn.Server):
    """uvicorn on a bound socket, without signal handlers: the gateway handles signals."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(  # type: ignore[arg-type]
                    BoundedHeads,
                    timeout_s=HEAD_SECONDS,
                    limit=MAX_HEAD,
                    rest_limit=MAX_BEHIND_HEAD,
                ),
                ws=BoundedSocket,
                ws_max_size=MAX_PAYLOAD,
                ws_per_message_deflate=False,
                ws_ping_interval=PING_SECONDS,
                ws_ping_timeout=PING_SECONDS,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

        self._finished = anyio.Event()

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until :meth:`stop`."""
        try:
            await self.serve([listener])
        finally:
            self._finished.set()

    async def stop(self) -> None:
        """Stop listening and close every connection, in about a second at most."""
        self.should_exit = True
        await self._finished.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
