"""Bidirectional Twilio Media Streams, from Twilio's side.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from voicecall_mock.exchange import sockets
from voicecall_mock.exchange.board import Switchboard

from .twiml import Stream

__all__ = ["StreamOwner", "TwilioStream"]

BINARY_MESSAGE = 31950
INVALID_MESSAGE = 31951
OVERFLOW = 31930

_BACKLOG_LIMIT = 100_000
"""How many bytes may wait for a slow server; beyond this, messages are discarded."""

_MEDIA = (
    b'{"event":"media","sequenceNumber":"%d","streamSid":"%b","media":'
    b'{"track":"inbound","chunk":"%d","timestamp":"%d","payload":"%b"}}'
)


class _MediaPart(msgspec.Struct, forbid_unknown_fields=True):
    payload: bytes


class _MarkPart(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class _Message(msgspec.Struct, tag_field="event", rename="camel", forbid_unknown_fields=True):
    stream_sid: str


class _Media(_Message, tag="media"):
    media: _MediaPart


class _Mark(_Message, tag="mark"):
    mark: _MarkPart


class _Clear(_Message, tag="clear"):
    pass


_decoder = msgspec.json.Decoder(_Media | _Mark | _Clear)


class StreamOwner(sockets.StreamOwner["TwilioStream"], Protocol):
    def stream_warning(self, stream: TwilioStream, code: int, message: str) -> None: ...


class TwilioStream(sockets.SocketStream):
    """The media stream of one ``<Connect><Stream>``. ``headers`` carry the signature of the
    upgrade."""

    _owner: StreamOwner

    def __init__(
        self,
        verb: Stream,
        sid: str,
        account_sid: str,
        call_sid: str,
        owner: StreamOwner,
        board: Switchboard,
        headers: Mapping[str, str],
    ) -> None:
        # Twilio drops the query.
        super().__init__(verb.url.partition("?")[0], owner, board, headers)
        self.verb = verb
        self.sid = sid
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._sequence = 0
        self._chunk = 0
        self._encoded_sid = sid.encode()
        self._stalled = False
        self._warned: set[int] = set()

    def stall(self) -> None:
        """Stop sending and reading; the connection stays open."""
        self._stalled = True
        if self._socket is not None:
            self._socket.transport.pause_reading()

    def stop(self, reason: str) -> None:
        if self._stalled and self._socket is not None:
            self._socket.transport.abort()  # the answer to a close would not be read
        super().stop(reason)

    def send_digits(self, digits: str) -> None:
        for digit in digits:
            self._send_event("dtmf", {"track": "inbound_track", "digit": digit})

    # --- frames -------------------------------------------------------------------------------

    def _event(self, event: str, content: Mapping[str, Any]) -> bytes:
        self._sequence += 1
        return msgspec.json.encode(
            {
                "event": event,
                "sequenceNumber": str(self._sequence),
                "streamSid": self.sid,
                event: content,
            }
        )

    def _send_event(self, event: str, content: Mapping[str, Any]) -> None:
        self.send(self._event(event, content))

    def opening(self) -> Sequence[bytes]:
        connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        start = {
            "streamSid": self.sid,
            "accountSid": self._account_sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "customParameters": dict(self.verb.parameters),
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        }
        return (msgspec.json.encode(connected), self._event("start", start))

    def media_message(self, at_ms: int, payload: bytes) -> bytes:
        self._sequence += 1
        self._chunk += 1
        return _MEDIA % (self._sequence, self._encoded_sid, self._chunk, at_ms, payload)

    def mark_message(self, name: str) -> bytes:
        return self._event("mark", {"name": name})

    def stop_message(self, reason: str) -> bytes:
        return self._event("stop", {"accountSid": self._account_sid, "callSid": self._call_sid})

    def send(self, message: bytes) -> None:
        if self._stalled:
            return
        if self.backlog > _BACKLOG_LIMIT:
            self._warn(OVERFLOW, "the server is too slow; audio is thrown away")
        else:
            super().send(message)

    def received(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._warn(BINARY_MESSAGE, "a binary message")
            return
        try:
            data = _decoder.decode(message)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._warn(INVALID_MESSAGE, str(error))
            return
        if data.stream_sid != self.sid:
            self._warn(INVALID_MESSAGE, "another stream's streamSid")
            return
        match data:
            case _Media():
                self.feed(data.media.payload)
            case _Mark():
                self.playback.mark(data.mark.name)
            case _Clear():
                self.clear()

    def _warn(self, code: int, message: str) -> None:
        """Warn once per stream and code, as Twilio does."""
        if code not in self._warned:
            self._warned.add(code)
            self._owner.stream_warning(self, code, message)
