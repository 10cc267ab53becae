"""Hands the connections that uvicorn upgrades over to picows, on the same port.

uvicorn creates the object that its ``ws`` setting names, gives it the transport and the request
head, and then forgets the connection. Here, that object is picows' own protocol. This module works
around three of its limits: picows accepts only a bare ``Connection: Upgrade`` (proxies send
``keep-alive, Upgrade``), reads only through the buffer interface, and closes without an answer if
the head is too long for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

from picows import WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]

from voicecall.errors import WebhookRejected
from voicecall.media import Upgrade
from voicecall_gateway.floods import FloodLog

from .sockets import MediaConnection
from .urls import Trust, headers_of, query_of

__all__ = ["Admit", "Refusal", "protocol_factory"]

READ_BUFFER = 8 * 1024
LONGEST_HEAD = 16 * 1024
"""Longest head that picows accepts."""
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)

_wire_logger = logging.getLogger("voicecall.calls.server.wire")
# picows logs every connection and every malformed frame; the media server logs what matters.
_wire_logger.setLevel(logging.CRITICAL)

Admit = Callable[[Upgrade], "MediaConnection | Refusal"]
"""Decides about an upgrade: a listener for the socket, or the refusal."""


class Refusal(NamedTuple):
    """An upgrade is refused with an HTTP status."""

    status: int
    text: str


class _MediaProtocol(WSProtocol):  # type: ignore[misc]
    """picows' server protocol, which gets the handshake from uvicorn."""

    log: FloodLog
    refusals: Counter[int]

    def data_received(self, data: bytes) -> None:
        """Process the request head, as reproduced by uvicorn."""
        request, _, headers = data.partition(b"\r\n")
        # If a header occurs several times, picows uses the first.
        rest = memoryview(b"%b\r\nConnection: Upgrade\r\n%b" % (request, headers))
        if len(rest) >= LONGEST_HEAD:
            text = "media socket of %s refused: a head of more than %d bytes"
            self.log.warning(text, _peer(self), LONGEST_HEAD)
            self.refusals[431] += 1
            self.transport.underlying_transport.write(_TOO_LONG)
            self.transport.underlying_transport.close()
            return
        while rest and not self.transport.underlying_transport.is_closing():
            buffer = self.get_buffer(-1)
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            self.buffer_updated(size)
            rest = rest[size:]

    def eof_received(self) -> bool:
        if isinstance(self.listener, MediaConnection):
            self.listener.closing()
        return bool(super().eof_received())


def _peer(protocol: Any) -> str | None:
    name = protocol.transport.underlying_transport.get_extra_info("peername")
    return name[0] if name else None


def protocol_factory(
    admit: Admit, trust: Trust, frame_limit: int, log: FloodLog, refusals: Counter[int]
) -> Callable[..., Any]:
    """A value for uvicorn's ``ws`` setting. ``refusals`` counts refusals by status."""

    def make(**_: Any) -> asyncio.BaseProtocol:
        protocol: Any = None

        def listener(request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
            peer = _peer(protocol)
            decision: MediaConnection | Refusal
            try:
                decision = admit(_upgrade(request, peer, trust))
            except WebhookRejected as refused:
                log.warning("media socket of %s refused: %s", peer, refused.reason)
                decision = Refusal(refused.status, "Bad Request")
            if isinstance(decision, Refusal):
                refusals[decision.status] += 1
                return WSUpgradeResponseWithListener(
                    WSUpgradeResponse.create_error_response(
                        HTTPStatus(decision.status), decision.text.encode()
                    ),
                    None,
                )
            return decision

        protocol = _MediaProtocol(
            None,  # host and port (clients only)
            None,  # path (clients only)
            False,  # is a client
            listener,
            _wire_logger,
            True,  # close on an exception
            None,  # handshake timeout: the handshake is already complete
            False,  # automatic pings
            20,
            20,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # automatic pongs
            frame_limit,
            None,  # extra headers (clients only)
            READ_BUFFER,
        )
        protocol.log, protocol.refusals = log, refusals
        return protocol  # type: ignore[no-any-return]

    return make


def _upgrade(request: WSUpgradeRequest, peer: str | None, trust: Trust) -> Upgrade:
    headers = headers_of(request.headers.items())
    path, _, query = request.path.decode("latin-1").partition("?")
    return Upgrade(
        path=unquote(path),
        query=query_of(query),
        headers=headers,
        client=trust.client(peer, headers),
    )
