"""Media sockets opened by a carrier, and the clock that they share. Subclasses define the messages.

The clock ticks every 20 ms on an absolute schedule. In each tick every stream plays a frame of
what it received and sends a frame of what its phone says. Nothing in a tick waits: frames are
written straight into the sockets' buffers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import anyio
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, WebSocketException

from voicecall.seam import Seam

from .playback import FRAME_MS, SILENCE, Playback

if TYPE_CHECKING:
    from .board import Switchboard
    from .line import CarrierLine

__all__ = ["MediaClock", "ProtocolBreach", "SocketStream", "StreamOwner"]

StreamT = TypeVar("StreamT", contravariant=True)

_SILENT_PAYLOAD = b2a_base64(SILENCE, newline=False)
_BACKLOG_LIMIT = 1_000_000
_CLOSE_S = 1.0


class ProtocolBreach(Exception):
    """A message that ends the stream."""


class MediaClock:
    """Ticks for all open streams; one task."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._streams: set[SocketStream] = set()
        self._wake = anyio.Event()

    def add(self, stream: SocketStream) -> None:
        self._streams.add(stream)
        self._wake.set()

    def discard(self, stream: SocketStream) -> None:
        self._streams.discard(stream)

    async def run(self) -> None:
        while True:
            self._wake = anyio.Event()
            if not self._streams:
                await self._wake.wait()
            due = self._seam.monotonic()
            while self._streams:
                for stream in list(self._streams):
                    stream.tick()
                due += FRAME_MS / 1000
                await anyio.sleep(max(0.0, due - self._seam.monotonic()))


class StreamOwner(Protocol[StreamT]):
    """The call, as its stream sees it. All methods are synchronous."""

    @property
    def line(self) -> CarrierLine: ...

    def stream_opened(self, stream: StreamT) -> None:
        """The first messages were sent."""
        ...

    def stream_closed(self, stream: StreamT) -> None:
        """Called once for each stream, opened or not."""
        ...


class SocketStream(ABC):
    """One media socket, from the connection attempt to its close. ``headers`` are sent with the
    upgrade.

    ``error``: why it failed or was lost, None otherwise. ``close_code``: the code with which the
    gateway closed it, None if it did not."""

    def __init__(
        self,
        url: str,
        owner: StreamOwner[Any],
        board: Switchboard,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        options = board.options
        self.url = url
        self.playback = Playback(
            gap_ms=options.underrun_gap_ms, limit=options.playback_limit_ms * 8
        )
        self.error: str | None = None
        self.close_code: int | None = None
        self._owner = owner
        self._board = board
        self._headers = headers
        self._scope = anyio.CancelScope()
        self._socket: ClientConnection | None = None
        self._stop_reason = "ended"
        self._frames = 0

    # --- the carrier's protocol ---------------------------------------------------------------

    @abstractmethod
    def opening(self) -> Sequence[bytes]:
        """The first messages."""

    @abstractmethod
    def media_message(self, at_ms: int, payload: bytes) -> bytes:
        """A frame from the phone, base64, ``at_ms`` after the start."""

    @abstractmethod
    def mark_message(self, name: str) -> bytes: ...

    @abstractmethod
    def stop_message(self, reason: str) -> bytes: ...

    @abstractmethod
    def send_digits(self, digits: str) -> None:
        """The phone pressed keys."""

    @abstractmethod
    def received(self, message: str | bytes) -> None:
        """Handle a message from the gateway. Raises :exc:`ProtocolBreach`."""

    # --- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Return when the socket was closed by either side."""
        try:
            with self._scope:
                self._socket = await self._connect()
                if self._socket is not None:
                    await self._converse(self._socket)
        finally:
            self._board.clock.discard(self)
            self._owner.stream_closed(self)
            if self._socket is not None:
                await self._close(self._socket)

    def stop(self, reason: str) -> None:
        """Close the socket (1000)."""
        self._stop_reason = reason
        self._scope.cancel()

    def drop(self, error: str) -> None:
        """Break the connection without a close frame."""
        self.error = error
        if self._socket is not None:
            self._socket.transport.abort()
        self._scope.cancel()

    def tick(self) -> None:
        """20 ms pass."""
        for name in self.playback.reached():
            self.send(self.mark_message(name))
        said = self._owner.line.exchange_frames(self.playback.take())
        payload = _SILENT_PAYLOAD if said is None else b2a_base64(said, newline=False)
        self.send(self.media_message(self._frames * FRAME_MS, payload))
        self._frames += 1

    @property
    def backlog(self) -> int:
        """Bytes that the gateway has not read yet."""
        return 0 if self._socket is None else self._socket.transport.get_write_buffer_size()

    def feed(self, payload: bytes) -> None:
        """Audio from the gateway arrived."""
        self.playback.feed(payload, self._board.seam.monotonic())

    def clear(self) -> None:
        """Drop the audio not yet played; every mark is returned at once."""
        for name in self.playback.clear():
            self.send(self.mark_message(name))

    def send(self, message: bytes) -> None:
        """Send a text message without waiting; the stream is dropped if the gateway does not
        read."""
        socket = self._socket
        if socket is None:
            return
        if self.backlog > _BACKLOG_LIMIT:
            self.drop("the gateway does not read")
            return
        # broadcast() is the library's way to send without waiting; it skips a closing socket.
        broadcast((socket,), message, text=True)

    async def _connect(self) -> ClientConnection | None:
        try:
            return await connect(
                self.url,
                additional_headers=self._headers,
                compression=None,
                ping_interval=None,
                open_timeout=self._board.options.connect_timeout_s,
                close_timeout=_CLOSE_S,
                proxy=None,
            )
        except (OSError, TimeoutError, WebSocketException, ValueError) as error:
            self.error = f"cannot connect: {error}"
            return None

    async def _converse(self, socket: ClientConnection) -> None:
        for message in self.opening():
            self.send(message)
        self._owner.stream_opened(self)
        self._board.clock.add(self)
        try:
            while True:
                self.received(await socket.recv())
        except ConnectionClosed as closed:
            self.close_code = closed.rcvd.code if closed.rcvd is not None else 1006
            if isinstance(closed, ConnectionClosedError) or self.close_code != 1000:
                self.error = self.error or f"the gateway closed the stream: {self.close_code}"
        except ProtocolBreach as breach:
            self.error = f"not a media message: {breach}"
            await socket.close(1007, "not a media message")

    async def _close(self, socket: ClientConnection) -> None:
        self.send(self.stop_message(self._stop_reason))
        with anyio.move_on_after(2 * _CLOSE_S, shield=True):
            await socket.close(1000, self._stop_reason)
