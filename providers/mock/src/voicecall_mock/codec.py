"""Media messages of the mock exchange: JSON text, 20 ms mu-law frames in base64.

From the exchange: ``start`` (``stream``, ``call``, ``token``), ``media`` (``payload``, ``at`` in
ms from the start), ``mark`` (``name``), ``digits`` (``digits``), ``stop`` (``reason``). To it:
``media``, ``mark``, ``clear``, ``digits``. Marks come back when played, and at once on ``clear``.
"""

from __future__ import annotations

from binascii import b2a_base64

import msgspec

from voicecall import MULAW_8K
from voicecall.errors import MediaProtocolError
from voicecall.media import (
    Audio,
    Dtmf,
    MarkReached,
    MediaCodec,
    MediaEvent,
    Message,
    Started,
    Stopped,
)

__all__ = ["MockCodec"]


class _Frame(msgspec.Struct):
    event: str
    payload: bytes = b""
    at: int = 0
    name: str = ""
    digits: str = ""
    stream: str = ""
    call: str = ""
    token: str = ""
    reason: str = ""


_decoder = msgspec.json.Decoder(_Frame)


class MockCodec(MediaCodec):
    def decode(self, message: Message) -> MediaEvent | None:
        try:
            frame = _decoder.decode(message)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MediaProtocolError(f"not a media message: {error}") from None
        match frame.event:
            case "media":
                return Audio(frame.payload, frame.at)
            case "mark":
                return MarkReached(frame.name)
            case "start":
                if not (frame.stream and frame.call):
                    raise MediaProtocolError("start without stream or call")
                return Started(frame.token, frame.stream, frame.call, MULAW_8K, MULAW_8K)
            case "digits":
                return Dtmf(frame.digits)
            case "stop":
                return Stopped(frame.reason)
            case other:
                raise MediaProtocolError(f"unknown media event {other!r}")

    def audio(self, payload: bytes) -> Message:
        return b'{"event":"media","payload":"' + b2a_base64(payload, newline=False) + b'"}'

    def mark(self, name: str) -> Message:
        return msgspec.json.encode({"event": "mark", "name": name})

    def clear(self) -> Message:
        return b'{"event":"clear"}'

    def digits(self, digits: str) -> Message:
        return msgspec.json.encode({"event": "digits", "digits": digits})
