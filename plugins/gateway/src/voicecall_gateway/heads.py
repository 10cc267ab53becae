"""Limits on request heads and on what follows them, and a flag for bodies that are complete.

uvicorn only closes connections that are idle after a response (here later than the usual proxies
do), and limits on bodies are left to its application. Without the limits here, a connection that
sends nothing, or a header a minute, would stay open for ever; so would one that sends another byte
of its body after it was answered. What follows a head is not only the body: chunks have heads too,
and trailers add to the request's headers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["WHOLE", "BoundedHeads"]

WHOLE = "voicecall.whole"
"""Set in the scope of a request once its body is complete, so that nothing has to wait for it."""

_WAITING = 8
"""Requests of one connection that may wait for the answer to another."""
_LONGEST_TARGET = 8 * 1024
"""Bytes of path and query. They are unescaped before anything is checked, which can take more than
a microsecond per byte."""
_KEPT_S = 130
"""How long an idle connection is kept: longer than the usual proxies and clients do (60 s to two
minutes). Otherwise they could use one that is just being closed, and they do not repeat a POST."""
_KEPT_BRIEFLY_S = 5
_MOST_KEPT = 64
"""With more connections than this on one port, idle ones are kept only briefly."""
_NOWHERE = cast(list[tuple[bytes, bytes]], deque(maxlen=0))


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's HTTP protocol with limits on time and size.

    A head must be complete within ``timeout_s`` seconds (of the connection or, on a connection that
    was kept, of the head's first byte) and ``limit`` bytes. Otherwise the answer is 408 or 431, or
    nothing if nothing was received, and the connection is closed. The rest of a body has the same
    time after its answer. The connection is also closed for more than ``rest_limit`` bytes after a
    head, too many requests at once, a WebSocket upgrade before another request is answered, a
    target of more than 8 KiB, and if the client reads nothing of an answer for ``timeout_s``.
    Trailers are dropped.
    """

    def __init__(
        self, *arguments: Any, timeout_s: float, limit: int, rest_limit: int, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._timeout_s = timeout_s
        self._limit = limit
        self._rest_limit = rest_limit
        self._length = 0
        self._in_request = False
        self._timer: asyncio.TimerHandle | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._unanswered: list[Any] = []
        """Requests under way; the first one is being handled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_over()
        self._moves_again()
        # uvicorn marks only the last of several requests, and would go on to answer the first:
        # uvloop raises an error for such a write.
        for request in self._unanswered:
            request.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._length += len(data)
        super().data_received(data)
        # Most requests are complete by now, and no timer is needed.
        if self._in_request:
            if self._length > self._rest_limit:
                self._refuse(None, f"more than {self._rest_limit} bytes after its head")
        elif self._length > self._limit:
            why = f"a head of more than {self._limit} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, why)
        elif self._length and self._timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_request = True
        self._head_is_over()
        if len(self.url) > _LONGEST_TARGET:
            why = f"a path and query of more than {_LONGEST_TARGET} bytes"
            self._tell(why)
            # This ends the parsing: uvicorn answers 400 and closes the connection.
            raise ValueError(why)
        super().on_headers_complete()
        if "path" in self.scope:
            # Not an upgrade. The scope has the headers; anything added from here on is a trailer.
            self.headers = _NOWHERE
            self._unanswered.append(self.cycle)
            if self.parser.should_upgrade():
                # An upgrade to another protocol: httptools reads no body then, and would take it
                # for the next request.
                self.cycle.keep_alive = False
        if len(self.pipeline) > _WAITING:
            raise ValueError("too many requests at once")

    def on_message_complete(self) -> None:
        self._in_request = False
        # Also ends the time that the answer before has set for the rest of this request.
        self._head_is_over()
        cast(dict[str, Any], self.scope)[WHOLE] = True
        answered = getattr(self.cycle, "response_complete", False)
        super().on_message_complete()
        if answered:
            # uvicorn's timer for idle connections ended with the first byte after the answer.
            self._expect_head()

    def handle_websocket_upgrade(self) -> None:
        # Another protocol takes over. After an earlier answer, the end of this head has started
        # the timer for the next one.
        self._head_is_over()
        if not getattr(self.cycle, "response_complete", True):
            # The answer to the other request would be mixed into what the socket sends.
            self._refuse(None, "a WebSocket upgrade before another request is answered")
            return
        super().handle_websocket_upgrade()

    def on_response_complete(self) -> None:
        del self._unanswered[0]
        few = len(self.connections) <= _MOST_KEPT
        self.timeout_keep_alive = _KEPT_S if few else _KEPT_BRIEFLY_S
        super().on_response_complete()
        if self._in_request and self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self._timeout_s, self._refuse, None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._moves_again()
        super().resume_writing()

    def _watch(self, waiting: int) -> None:
        self._stuck = self.loop.call_later(self._timeout_s, self._look, waiting)

    def _look(self, before: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting < before:
            self._watch(waiting)
        else:
            self.transport.abort()

    def _moves_again(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def _expect_head(self) -> None:
        self._timer = self.loop.call_later(self._timeout_s, self._expired)

    def _head_is_over(self) -> None:
        self._length = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expired(self) -> None:
        if self._length:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no complete head in {self._timeout_s:g} s")
        else:
            self._refuse(None)

    def _refuse(self, status: HTTPStatus | None, why: str | None = None) -> None:
        """Answer with ``status``, if any, log ``why``, if any, and close."""
        self._head_is_over()
        if self.transport.is_closing():
            return
        if why is not None:
            self._tell(why)
        if status is not None:
            line = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            self.transport.write(f"{line}content-length: 0\r\nconnection: close\r\n\r\n".encode())
        self.transport.close()

    def _tell(self, why: str) -> None:
        client = self.client[0] if self.client else "unknown"
        self.logger.warning("request from %s refused: %s", client, why)
