"""Messages of Twilio's Media Streams.

Source: Twilio's documentation of Media Streams WebSocket messages, for bidirectional streams. All
messages are JSON text; numbers in them are texts. Audio is base64. Marks come back when everything
before them was played, and at once on ``clear``. A message that names another stream is ignored by
Twilio, so each of ours begins with the id from ``start``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from voicecall import MULAW_8K, AudioFormat
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

__all__ = ["TwilioCodec"]

_FORMATS: dict[tuple[str, int, int], AudioFormat] = {("audio/x-mulaw", 8000, 1): MULAW_8K}


class _Media(msgspec.Struct, gc=False):
    payload: bytes
    track: str = "inbound"
    timestamp: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Format(msgspec.Struct, rename="camel"):
    encoding: str = "audio/x-mulaw"
    sample_rate: int = 8000
    channels: int = 1


class _Start(msgspec.Struct, rename="camel"):
    stream_sid: str = ""
    call_sid: str = ""
    custom_parameters: dict[str, str] = {}
    media_format: _Format = msgspec.field(default_factory=_Format)


class _Mark(msgspec.Struct):
    name: str


class _Dtmf(msgspec.Struct):
    digit: str


class _Frame(msgspec.Struct, rename="camel", gc=False):
    event: str
    media: _Media | None = None
    start: _Start | None = None
    mark: _Mark | None = None
    dtmf: _Dtmf | None = None


# Not strict: numbers may be written as texts.
_decoder = msgspec.json.Decoder(_Frame, strict=False)
_encode = msgspec.json.Encoder().encode
"""Bytes become base64, in two thirds of the time that binascii takes."""


class TwilioCodec(MediaCodec):
    __slots__ = ("_mark", "_media", "_stream")

    def __init__(self) -> None:
        self._media = self._mark = b""
        self._stream = ""

    def decode(self, message: Message) -> MediaEvent | None:
        if type(message) is not str:
            raise MediaProtocolError("a binary message")
        try:
            frame = _decoder.decode(message)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise MediaProtocolError(f"no media message: {error}") from None
        if (media := frame.media) is not None and frame.event == "media":
            return Audio(media.payload, media.timestamp) if media.track == "inbound" else None
        match frame:
            case _Frame(event="mark", mark=_Mark(name)):
                return MarkReached(name)
            case _Frame(event="start", start=_Start() as start):
                return self._started(start)
            case _Frame(event="dtmf", dtmf=_Dtmf(digit)):
                return Dtmf(digit)
            case _Frame(event="stop"):
                return Stopped()
            case _Frame(event="media" | "mark" | "start" | "dtmf" as event):
                raise MediaProtocolError(f"{event} without its content")
        # "connected", and whatever Twilio adds.
        return None

    def _started(self, start: _Start) -> Started:
        if not (start.stream_sid and start.call_sid):
            raise MediaProtocolError("start without streamSid or callSid")
        told = start.media_format
        audio = _FORMATS.get((told.encoding, told.sample_rate, told.channels))
        if audio is None:
            raise MediaProtocolError(
                f"audio as {told.encoding}, {told.sample_rate} Hz, {told.channels} channels"
            )
        self._stream = start.stream_sid
        sid = _encode(start.stream_sid)
        self._media = b'{"event":"media","streamSid":' + sid + b',"media":{"payload":'
        self._mark = b'{"event":"mark","streamSid":' + sid + b',"mark":{"name":'
        return Started(
            start.custom_parameters.get("token", ""),
            start.stream_sid,
            start.call_sid,
            audio,
            audio,
            start.custom_parameters,
        )

    def audio(self, payload: bytes) -> Message:
        return self._media + _encode(payload) + b"}}"

    def mark(self, name: str) -> Message:
        return self._mark + _encode(name) + b"}}"

    def clear(self) -> Message:
        return _encode({"event": "clear", "streamSid": self._stream})
