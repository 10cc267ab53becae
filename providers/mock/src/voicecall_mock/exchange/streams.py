"""Media streams of the mock exchange. :mod:`voicecall_mock.codec` describes the messages."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from voicecall.telephony import StreamRequest

from .board import Switchboard
from .sockets import ProtocolBreach, SocketStream, StreamOwner

__all__ = ["MediaStream"]

_MEDIA = b'{"event":"media","at":%d,"payload":"%b"}'


class _Message(msgspec.Struct):
    event: str
    payload: bytes = b""
    name: str = ""
    digits: str = ""


_decoder = msgspec.json.Decoder(_Message)


class MediaStream(SocketStream):
    """One media socket of a call."""

    def __init__(
        self,
        request: StreamRequest,
        call_id: str,
        owner: StreamOwner[MediaStream],
        board: Switchboard,
    ) -> None:
        super().__init__(request.url, owner, board)
        self.id = f"st-{board.seam.new_id()}"
        self._token = request.token
        self._call_id = call_id

    def send_digits(self, digits: str) -> None:
        self.send(msgspec.json.encode({"event": "digits", "digits": digits}))

    def opening(self) -> Sequence[bytes]:
        start = {
            "event": "start",
            "stream": self.id,
            "call": self._call_id,
            "token": self._token,
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
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolBreach(str(error)) from None
        match data.event:
            case "media":
                self.feed(data.payload)
            case "mark":
                self.playback.mark(data.name)
            case "clear":
                self.clear()
            case "digits":
                self._owner.line.hear_digits(data.digits)
            case other:
                raise ProtocolBreach(f"unknown event {other!r}")
