"""Bounds on the heads of requests, and on what follows them, which uvicorn takes however slowly and
however long they come; and word of bodies that are there already.

uvicorn closes a connection that is idle after a response, here only when the usual proxies have
closed theirs, and limits on bodies are its application's. In between, a connection that sends
nothing, or a header a minute, would stay for ever, and so would one that sends a byte of its body
when it was answered already. Nor is all that follows a head a body: chunks have heads of their own,
and a trailer adds to the request's headers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["WHOLE", "BoundedHeads"]

WHOLE = "voicecall.whole"
"""In the scope of a request whose body is there: nobody needs to wait for it."""

_WAITING = 8
"""Requests of one connection that may wait for the answer to another."""
_LONGEST_TARGET = 8 * 1024
"""Bytes of path and query. To unescape them, which is done before anything is checked, may take a
microsecond and more for each."""
_KEPT_S = 130
"""So long an idle connection stays open: longer than usual proxies and clients keep theirs (60 s to
two minutes), which would otherwise use one that is just being closed, and do not repeat a POST."""
_KEPT_BRIEFLY_S = 5
_MOST_KEPT = 64
"""Connections of one port. With more of them, those that become idle are kept briefly only."""
_NOWHERE = cast(list[tuple[bytes, bytes]], deque(maxlen=0))


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, where a request's head must be whole within ``timeout_s`` seconds of the
    connection, or of its first byte on a connection that is kept, and before more than ``limit``
    bytes of it came. Otherwise it is answered (408, 431; not at all where nothing came) and the
    connection is closed. What is left of a body behind its answer has as much time. The connection
    is also closed when more than ``rest_limit`` bytes come behind a head, or many requests at once,
    or one for a WebSocket before another is answered, or with a target of more than 8 KiB, or where
    nothing is read of an answer for ``timeout_s``; trailers are dropped.
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
        """Requests under way, the one that is being handled first."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_over()
        self._moves_again()
        # uvicorn tells only the last of several requests, and would answer the first: uvloop raises
        # an error where it writes then.
        for request in self._unanswered:
            request.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._length += len(data)
        super().data_received(data)
        # Most requests are whole by now: nothing of a head is there that needs a timer.
        if self._in_request:
            if self._length > self._rest_limit:
                self._refuse(None, f"more than {self._rest_limit} bytes behind its head")
        elif self._length > self._limit:
            why = f"a head of more than {self._limit} bytes"
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, why)
        elif self._length and self._timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_request = True
        self._head_is_over()
        if len(self.url) > _LONGEST_TARGET:
            why = f"a target of more than {_LONGEST_TARGET} bytes"
            self._tell(why)
            # Ends the parsing: uvicorn answers 400 and closes.
            raise ValueError(why)
        super().on_headers_complete()
        if "path" in self.scope:
            # No upgrade. The scope has the headers; what is added now are trailers.
            self.headers = _NOWHERE
            self._unanswered.append(self.cycle)
            if self.parser.should_upgrade():
                # To another protocol. httptools reads no body then: it would be the next request.
                self.cycle.keep_alive = False
        if len(self.pipeline) > _WAITING:
            raise ValueError("too many requests at once")

    def on_message_complete(self) -> None:
        self._in_request = False
        # Also the time that an answer before it has left to this one.
        self._head_is_over()
        cast(dict[str, Any], self.scope)[WHOLE] = True
        answered = getattr(self.cycle, "response_complete", False)
        super().on_message_complete()
        if answered:
            # uvicorn's timer for idle connections ended with the first byte behind the answer.
            self._expect_head()

    def handle_websocket_upgrade(self) -> None:
        # The connection is another protocol's from now on. The end of its head has begun to wait
        # for the next one where there was an answer before.
        self._head_is_over()
        if not getattr(self.cycle, "response_complete", True):
            # The answer to another request would come in the midst of what the socket sends.
            self._refuse(None, "a WebSocket before another request is answered")
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
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"no whole head in {self._timeout_s:g} s")
        else:
            self._refuse(None)

    def _refuse(self, status: HTTPStatus | None, why: str | None = None) -> None:
        """Answer with ``status`` and close; without ``why`` there is nothing to tell of."""
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
        self.logger.warning("request of %s refused: %s", client, why)
