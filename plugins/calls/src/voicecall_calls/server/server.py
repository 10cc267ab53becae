"""Webhooks and media sockets on one port."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import anyio
import uvicorn

from voicecall.errors import ConfigError
from voicecall.seam import Seam
from voicecall.telephony import TelephonyProvider
from voicecall_calls.config import CONFIG_PATH, ServeConfig
from voicecall_calls.doors import Doors
from voicecall_gateway.floods import FloodLog
from voicecall_gateway.heads import BoundedHeads

from .media import MediaServer
from .options import StreamOptions, WebhookSecurity
from .pipeline import WebhookApp
from .upgrade import protocol_factory
from .urls import Trust, media_url, normal_path

__all__ = ["CallServer"]

logger = logging.getLogger("voicecall.calls.server")

BACKLOG = 1024
BEHIND_HEADS = 2 * 1024 * 1024
"""What may follow a head beyond the longest body: the rest of a body that is too long."""
GRACE_S = 5
"""How long webhooks in flight may take to finish when the server stops."""


class CallServer:
    """The listener of one carrier.

    Within ``async with server.run():``, it accepts webhooks at ``serve.path``, media sockets at
    ``stream.path`` and ``GET /healthz``.
    """

    def __init__(
        self,
        provider: TelephonyProvider,
        doors: Doors,
        *,
        serve: ServeConfig,
        stream: StreamOptions,
        security: WebhookSecurity,
        seam: Seam,
        public_url: str | None = None,
        challenged: Callable[[str], str] | None = None,
    ) -> None:
        trust = Trust(security)
        self._serve = serve
        self._stream = stream
        self._app = WebhookApp(
            provider,
            doors,
            serve=serve,
            media_path=stream.path,
            security=security,
            trust=trust,
            seam=seam,
            challenged=challenged,
        )
        self._media = MediaServer(
            provider,
            doors,
            stream,
            url=lambda: self.stream_url,
            seam=seam,
            skip_signatures=security.skip_signatures,
        )
        self._heads = partial(
            BoundedHeads,
            timeout_s=security.head_timeout_s,
            limit=security.head_limit,
            rest_limit=security.body_limit + BEHIND_HEADS,
        )
        log = FloodLog(logger, seam.monotonic)
        self._protocol = protocol_factory(
            self._media.upgrade, trust, stream.frame_limit, log, self._media.refused
        )
        self._app.public_url = public_url
        self._use_port(serve.port)

    # --- addresses --------------------------------------------------------------------------

    @property
    def local_url(self) -> str:
        """URL of the webhooks as seen from this machine."""
        return self._app.local_url

    @property
    def public_url(self) -> str | None:
        return self._app.public_url

    def set_public_url(self, url: str | None) -> None:
        """Set the URL at which the carrier reaches the webhooks."""
        self._app.public_url = url
        self.webhook_url = url or self.local_url
        """The URL to give to the carrier: the public one, else the local one."""
        self.stream_url = media_url(
            self.webhook_url, serve_path=self._serve.path, stream_path=self._stream.path
        )
        """The URL of the media sockets."""

    def _use_port(self, port: int) -> None:
        self.port = port
        """The port of the listener; before it listens, the configured one."""
        bind = self._serve.bind
        host = f"[{bind}]" if ":" in bind else bind
        self._app.local_url = f"http://{host}:{port}{normal_path(self._serve.path)}"
        self.set_public_url(self.public_url)

    # --- life -------------------------------------------------------------------------------

    @property
    def open_sockets(self) -> int:
        """Connected media sockets, including pending ones."""
        return self._media.open_sockets

    @property
    def pending_sockets(self) -> int:
        """Unsigned media sockets that the engine has not admitted yet."""
        return self._media.pending_sockets

    @property
    def refused_webhooks(self) -> Mapping[int, int]:
        """Number of refused requests by HTTP status."""
        return self._app.refused

    @property
    def refused_sockets(self) -> Mapping[int, int]:
        """Number of refused media sockets by HTTP status or, for those not yet admitted, close
        code."""
        return self._media.refused

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Listen. On exit media sockets are closed (1001), webhooks in flight have ``GRACE_S``
        to finish, and the port is free when this returns.

        Raises :exc:`voicecall.errors.ConfigError` if it cannot listen.
        """
        listener = await self._listen()
        self._use_port(listener.getsockname()[1])
        server = _Uvicorn(
            uvicorn.Config(
                self._app,
                loop="asyncio",
                http=self._heads,  # type: ignore[arg-type]
                ws=self._protocol,  # type: ignore[arg-type]
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.run_until_told, listener, name="call server")
                try:
                    await server.ready.wait()
                    async with self._media.run():
                        yield
                finally:
                    server.should_exit = True
        finally:
            listener.close()

    async def _listen(self) -> socket.socket:
        bind, port = self._serve.bind, self._serve.port
        try:
            found = await anyio.getaddrinfo(
                bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {bind!r}: {error.strerror}", path=f"{CONFIG_PATH}.serve.bind"
            ) from None
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            message = f"cannot listen on {bind} port {port}: {error.strerror}"
            if error.errno == errno.EADDRINUSE:
                message = f"port {port} on {bind} is already in use; choose another one"
            key = "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "bind"
            raise ConfigError(message, path=f"{CONFIG_PATH}.serve.{key}") from None
        return listener


class _Uvicorn(uvicorn.Server):
    """A uvicorn server that runs in a task group and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def run_until_told(self, listener: socket.socket) -> None:
        """Serve until ``should_exit``, which the owner's ``finally`` always sets. Shielded, so that
        cancellation cannot interrupt the orderly shutdown."""
        with anyio.CancelScope(shield=True):
            await self.serve([listener])
            # Requests that outlived the grace were cancelled: wait for them, and cut the rest.
            await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
            for connection in list(self.server_state.connections):
                if connection.transport is not None:
                    connection.transport.abort()
