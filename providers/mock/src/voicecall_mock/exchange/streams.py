"""Media streams of the mock exchange. Messages: see :mod:`voicecall_mock.codec`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from voicecall.seam import Seam
from voicecall.telephony import StreamRequest

from .options import ExchangeOptions
from .sockets import MediaClock, ProtocolBreach, SocketStream

__all__ = ["MediaClock", "MediaStream", "StreamOwner"]

_MEDIA = b'{"event":"media","at":%d,"payload":"%b"}'


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


class MediaStream(SocketStream):
    """One media socket of a call."""

    def __init__(
        self,
        request: StreamRequest,
        call_id: str,
        owner: StreamOwner,
        clock: MediaClock,
        seam: Seam,
        options: ExchangeOptions,
    ) -> None:
        super().__init__(request.url, clock, seam, options)
        self.id = f"st-{seam.new_id()}"
        self.request = request
        self._call_id = call_id
        self._owner = owner

    def send_digits(self, digits: str) -> None:
        self.send(msgspec.json.encode({"event": "digits", "digits": digits}))

    def opening(self) -> Sequence[bytes]:
        start = {
            "event": "start",
            "stream": self.id,
            "call": self._call_id,
            "token": self.request.token,
        }
        return (msgspec.json.encode(start),)

    def media_message(self, at_ms: int, payload: bytes) -> bytes:
        return _MEDIA % (at_ms, payload)

    def mark_message(self, name: str) -> bytes:
        return msgspec.json.encode({"event": "mark", "name": name})

    def stop_message(self, reason: str) -> bytes:
        return msgspec.json.encode({"event": "stop", "reason": reason})

    def received(self, message: str | bytes) -> None:
        try:
            data = _decoder.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ProtocolBreach(str(error)) from None
        match data.event:
            case "media":
                self.feed(data.payload)
            case "mark":
                self.playback.mark(data.name)
            case "clear":
                self.clear()
            case "digits":
                self._owner.digits_arrived(data.digits)
            case other:
                raise ProtocolBreach(f"unknown event {other!r}")

    def opened(self) -> None:
        self._owner.stream_opened(self)

    def closed(self) -> None:
        self._owner.stream_closed(self, self.error)

    def exchange_frames(self, heard: bytes | None) -> bytes | None:
        return self._owner.exchange_frames(heard)
