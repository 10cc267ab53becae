"""Kept HTTP connections: how long and how many. On virtual time, without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from voicecall_gateway.heads import BoundedHeads
from voicecall_testing.clock import virtual_backend

pytestmark = [pytest.mark.unit, pytest.mark.anyio]

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Wire(asyncio.Transport):
    """A transport that takes everything until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed:
            # As uvloop's does.
            raise RuntimeError("the handler is closed")
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Port:
    """A listener without sockets, whose application waits for ``gate``."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.gate.set()
        self._state = ServerState()
        self._config = uvicorn.Config(self._app, interface="asgi3", log_config=None)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.gate.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def connected(self) -> tuple[BoundedHeads, Wire]:
        protocol, wire = self._protocol(), Wire()
        protocol.connection_made(wire)
        return protocol, wire

    def _protocol(self) -> BoundedHeads:
        bounds: dict[str, Any] = {"timeout_s": 10.0, "limit": 1000, "rest_limit": 1000}
        return BoundedHeads(self._config, self._state, {}, **bounds)


async def test_an_idle_connection_is_kept_longer_than_proxies_keep_theirs() -> None:
    protocol, wire = Port().connected()
    for _ in range(2):
        protocol.data_received(REQUEST)
        # Caddy's two minutes are the longest of the usual ones.
        await anyio.sleep(121)
        assert not wire.closed
    assert wire.written.count(b"HTTP/1.1 204 ") == 2
    await anyio.sleep(20)
    assert wire.closed


async def test_of_many_connections_few_are_kept_while_they_are_idle() -> None:
    port = Port()
    connections = [port.connected() for _ in range(64)]
    for protocol, _ in connections:
        protocol.data_received(REQUEST)
    await anyio.sleep(1)
    # Somebody opens more and more.
    more = [port.connected() for _ in range(200)]
    for protocol, _ in more:
        protocol.data_received(REQUEST)
    await anyio.sleep(6)
    assert [wire.closed for _, wire in connections] == [False] * 64
    assert [wire.closed for _, wire in more] == [True] * 200
    for protocol, _ in more:
        protocol.connection_lost(None)
    # Then there is room again.
    protocol, _ = connections[0]
    protocol.connection_lost(None)
    protocol, wire = port.connected()
    protocol.data_received(REQUEST)
    await anyio.sleep(60)
    assert not wire.closed


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_a_connection_that_breaks_before_its_answers_is_no_error(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    port = Port()
    protocol, wire = port.connected()
    protocol.data_received(REQUEST * 2)
    await anyio.sleep(1)
    port.gate = anyio.Event()
    protocol.data_received(REQUEST * count)
    await anyio.sleep(1)
    wire.close()
    protocol.connection_lost(None)
    port.gate.set()
    await anyio.sleep(1)
    assert wire.written.count(b"HTTP/1.1 204 ") == 2
    assert caplog.messages == []
