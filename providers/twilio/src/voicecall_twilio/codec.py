"""Messages of Twilio's Media Streams.

Source: Twilio's documentation of Media Streams WebSocket messages, for bidirectional streams. All
messages are JSON text; numbers in them are strings. Audio is base64. Marks come back when
everything before them was played, and at once on ``clear``. Twilio ignores a message that names
another stream, so each of ours begins with the id from ``start``.
"""

from __future__ import annotations

from typing import Annotated, get_args

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

__all__ = ["TwilioCodec"]


class _Media(msgspec.Struct, gc=False):
    payload: bytes
    track: str = "inbound"
    timestamp: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Format(msgspec.Struct, rename="camel"):
    """The defaults are mu-law, the only accepted format."""

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


class _MediaFrame(msgspec.Struct, tag_field="event", tag="media", gc=False):
    media: _Media


class _StartFrame(msgspec.Struct, tag_field="event", tag="start"):
    start: _Start


class _MarkFrame(msgspec.Struct, tag_field="event", tag="mark"):
    mark: _Mark


class _DtmfFrame(msgspec.Struct, tag_field="event", tag="dtmf"):
    dtmf: _Dtmf


class _StopFrame(msgspec.Struct, tag_field="event", tag="stop"):
    """Its content is not needed."""


class _Named(msgspec.Struct):
    event: str


_Frame = _MediaFrame | _StartFrame | _MarkFrame | _DtmfFrame | _StopFrame
_KNOWN = frozenset(frame.__struct_config__.tag for frame in get_args(_Frame))
_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)

# Not strict: numbers may be written as strings.
_decoder: msgspec.json.Decoder[_Frame] = msgspec.json.Decoder(_Frame, strict=False)
_name_decoder = msgspec.json.Decoder(_Named)
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
        except _UNREADABLE as error:
            if _is_foreign(message):
                return None
            raise MediaProtocolError(f"not a media message: {error}") from None
        match frame:
            case _MediaFrame(media):
                inbound = media.track == "inbound"
                return Audio(media.payload, media.timestamp) if inbound else None
            case _MarkFrame(mark):
                return MarkReached(mark.name)
            case _StartFrame(start):
                return self._started(start)
            case _DtmfFrame(dtmf):
                return Dtmf(dtmf.digit)
            case _StopFrame():
                return Stopped()

    def caller_audio(self, message: Message) -> bytes | None:
        if type(message) is not str:
            return None
        try:
            frame = _decoder.decode(message)
        except _UNREADABLE:
            return None
        if type(frame) is _MediaFrame and (media := frame.media).track == "inbound":
            return media.payload
        return None

    def _started(self, start: _Start) -> Started:
        if not (start.stream_sid and start.call_sid):
            raise MediaProtocolError("start without streamSid or callSid")
        told = start.media_format
        if told != _Format():
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
            MULAW_8K,
            MULAW_8K,
            start.custom_parameters,
        )

    def audio(self, payload: bytes) -> Message:
        return self._media + _encode(payload) + b"}}"

    def mark(self, name: str) -> Message:
        return self._mark + _encode(name) + b"}}"

    def clear(self) -> Message:
        return _encode({"event": "clear", "streamSid": self._stream})


def _is_foreign(message: str) -> bool:
    """Whether the event of a message is not used here: "connected", or one that Twilio has
    added."""
    try:
        return _name_decoder.decode(message).event not in _KNOWN
    except _UNREADABLE:
        return False
