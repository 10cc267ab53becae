"""Media streams: one socket each, one clock for all of them.

Messages: see :mod:`voicecall_mock.codec`. The clock ticks every 20 ms on an absolute schedule;
in each tick every stream plays a frame of what it received and sends a frame of what its phone
says. Nothing in it waits: frames are written straight into the sockets' buffers.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Protocol

import anyio
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.connection import broadcast
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, WebSocketException

from voicecall.seam import Seam
from voicecall.telephony import StreamRequest

from .options import ExchangeOptions
from .playback import FRAME_MS, SILENCE, Playback

__all__ = ["MediaClock", "MediaStream", "StreamOwner"]

_MEDIA = b'{"event":"media","at":%d,"payload":"%b"}'
_SILENT_PAYLOAD = b2a_base64(SILENCE, newline=False)
_BACKLOG_LIMIT = 1_000_000
_CLOSE_S = 1.0


class _Message(msgspec.Struct):
    event: str
    payload: bytes = b""
    name: str = ""
    digits: str = ""


_decoder = msgspec.json.Decoder(_Message)


class StreamOwner(Protocol):
    """The call, as its stream sees it. Plain calls."""

    def stream_opened(self, stream: MediaStream) -> None: ...

    def stream_closed(self, stream: MediaStream, error: str | None) -> None:
        """Once for each stream, opened or not. ``error``: it failed or was lost."""
        ...

    def digits_arrived(self, digits: str) -> None: ...

    def exchange_frames(self, heard: bytes | None) -> bytes | None:
        """20 ms pass: ``heard`` was played; the frame the phone says. None is silence."""
        ...


class MediaClock:
    """Ticks for all open streams; one task."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._streams: set[MediaStream] = set()
        self._wake = anyio.Event()

    def add(self, stream: MediaStream) -> None:
        self._streams.add(stream)
        self._wake.set()

    def discard(self, stream: MediaStream) -> None:
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


class MediaStream:
    """One media socket of a call, from dialling the gateway to its close."""

    def __init__(
        self,
        request: StreamRequest,
        call_id: str,
        owner: StreamOwner,
        clock: MediaClock,
        seam: Seam,
        options: ExchangeOptions,
    ) -> None:
        self.id = f"st-{seam.new_id()}"
        self.request = request
        self.playback = Playback(
            gap_ms=options.underrun_gap_ms, limit=options.playback_limit_ms * 8
        )
        self._call_id = call_id
        self._owner = owner
        self._clock = clock
        self._seam = seam
        self._options = options
        self._scope = anyio.CancelScope()
        self._socket: ClientConnection | None = None
        self._stop_reason = "ended"
        self._error: str | None = None
        self._frames = 0

    async def run(self) -> None:
        """Until the socket is closed, by whomever."""
        try:
            with self._scope:
                self._socket = await self._connect()
                if self._socket is not None:
                    await self._converse(self._socket)
        finally:
            self._clock.discard(self)
            self._owner.stream_closed(self, self._error)
            if self._socket is not None:
                await self._close(self._socket)

    def stop(self, reason: str) -> None:
        """Close the socket (1000)."""
        self._stop_reason = reason
        self._scope.cancel()

    def drop(self, error: str) -> None:
        """Break the connection without a close frame."""
        self._error = error
        if self._socket is not None:
            self._socket.transport.abort()
        self._scope.cancel()

    def send_digits(self, digits: str) -> None:
        self._send(msgspec.json.encode({"event": "digits", "digits": digits}))

    def tick(self) -> None:
        """20 ms pass."""
        for name in self.playback.reached():
            self._send_mark(name)
        said = self._owner.exchange_frames(self.playback.take())
        payload = _SILENT_PAYLOAD if said is None else b2a_base64(said, newline=False)
        self._send(_MEDIA % (self._frames * FRAME_MS, payload))
        self._frames += 1

    # --- the socket -------------------------------------------------------------------------

    async def _connect(self) -> ClientConnection | None:
        try:
            return await connect(
                self.request.url,
                compression=None,
                ping_interval=None,
                open_timeout=self._options.connect_timeout_s,
                close_timeout=_CLOSE_S,
                proxy=None,
            )
        except (OSError, TimeoutError, WebSocketException, ValueError) as error:
            self._error = f"cannot connect: {error}"
            return None

    async def _converse(self, socket: ClientConnection) -> None:
        start = {
            "event": "start",
            "stream": self.id,
            "call": self._call_id,
            "token": self.request.token,
        }
        self._send(msgspec.json.encode(start))
        self._owner.stream_opened(self)
        self._clock.add(self)
        try:
            while True:
                self._received(await socket.recv())
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else 1006
            if isinstance(closed, ConnectionClosedError) or code != 1000:
                self._error = self._error or f"the gateway closed the stream: {code}"
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._error = f"no media message: {error}"
            await socket.close(1007, "no media message")

    def _received(self, message: str | bytes) -> None:
        data = _decoder.decode(message)
        match data.event:
            case "media":
                self.playback.feed(data.payload, self._seam.monotonic())
            case "mark":
                self.playback.mark(data.name)
            case "clear":
                for name in self.playback.clear():
                    self._send_mark(name)
            case "digits":
                self._owner.digits_arrived(data.digits)
            case other:
                raise msgspec.ValidationError(f"unknown event {other!r}")

    def _send_mark(self, name: str) -> None:
        self._send(msgspec.json.encode({"event": "mark", "name": name}))

    def _send(self, message: bytes) -> None:
        socket = self._socket
        if socket is None:
            return
        if socket.transport.get_write_buffer_size() > _BACKLOG_LIMIT:
            self.drop("the gateway does not read")
            return
        # broadcast() is the library's way to send without waiting; it skips a closing socket.
        broadcast((socket,), message, text=True)

    async def _close(self, socket: ClientConnection) -> None:
        self._send(msgspec.json.encode({"event": "stop", "reason": self._stop_reason}))
        with anyio.move_on_after(2 * _CLOSE_S, shield=True):
            await socket.close(1000, self._stop_reason)
