"""An ASGI application on uvicorn inside this process, without signal handlers, and without log
lines unless there is a problem."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.lowlevel
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["break_connection", "leave_unanswered", "serve_app"]

_EXTENSION = "voicecall.abort"


class _Protocol(HttpToolsProtocol):
    """Offers the application a way to close the connection without a reply."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {_EXTENSION: {"abort": self.transport.abort}}


def break_connection(scope: Scope) -> None:
    """Reset the client's connection."""
    scope["extensions"][_EXTENSION]["abort"]()


async def leave_unanswered(
    app: ASGIApp, scope: Scope, receive: Receive, *, delay_s: float = 0.0
) -> None:
    """Have ``app`` carry out a request, and ``delay_s`` later close the client's connection
    instead of answering."""
    await app(scope, receive, _swallow)
    await anyio.sleep(delay_s)
    break_connection(scope)
    while (await receive())["type"] != "http.disconnect":
        continue


async def _swallow(message: Message) -> None:
    await anyio.lowlevel.checkpoint()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def serve_app(app: ASGIApp, host: str, port: int) -> AsyncIterator[str]:
    """Listen on ``host`` and ``port`` (0: any free one); yields the base URL. Raises
    ``OSError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    bound = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)

    async def run() -> None:
        # Shielded, so that connections are closed properly even if the host is cancelled.
        with anyio.CancelScope(shield=True):
            await server.serve(sockets=[listener])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        try:
            yield f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
        finally:
            server.should_exit = True
