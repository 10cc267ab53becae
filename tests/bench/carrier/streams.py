"""Media streams as a carrier sends them: a frame every 20 ms, marks answered when due.

Every frame carries its number, by which it is recognised in whatever pieces come back. The number
is written in ASCII, whose bytes survive a conversion to linear audio and back.
"""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any

import msgspec
from picows import WSFrame, WSListener, WSMsgType, WSTransport

__all__ = ["FRAME_S", "Stream", "pace"]

FRAME = 160
FRAME_S = 0.02
_BYTES_A_SECOND = 8000
_TICK_S = 0.001

_TAG = b"frame %09d"
_TAG_SIZE = len(_TAG % 0)
_FOUND = re.compile(rb"frame ([0-9]{9})")
# The tag's length is a multiple of three bytes, so its base64 can be prepended to the rest's.
_REST = b2a_base64(b"\x55" * (FRAME - _TAG_SIZE), newline=False)
_MEDIA = (
    b'{"event":"media","sequenceNumber":"%d","media":{"track":"inbound","chunk":"%d",'
    b'"timestamp":"%d","payload":"%b%b"},"streamSid":"%b"}'
)


class _Media(msgspec.Struct):
    payload: bytes


class _Mark(msgspec.Struct):
    name: str


class _Reply(msgspec.Struct):
    event: str
    media: _Media | None = None
    mark: _Mark | None = None


_decode = msgspec.json.Decoder(_Reply).decode


class Stream(WSListener):
    """One stream. While ``measuring``, the delays of its frames are kept, in seconds."""

    def __init__(self, stream_sid: str, call_sid: str, parameters: Mapping[str, str]) -> None:
        self.measuring = False
        self.closed = False
        self.sent = 0
        self.delays = array("d")
        self.measured = 0
        self.underruns = 0
        self._sid = stream_sid
        self._sid_bytes = stream_sid.encode()
        self._call_sid = call_sid
        self._parameters = parameters
        self._times: dict[int, float] = {}
        self._played_at = 0.0
        self._transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._tell({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        start = {
            "streamSid": self._sid,
            "callSid": self._call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        head = {"event": "start", "sequenceNumber": "1", "streamSid": self._sid}
        self._tell({**head, "start": start})

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed = True

    def say(self) -> None:
        """Send the next frame."""
        transport = self._transport
        if self.closed or transport is None:
            return
        number = self.sent = self.sent + 1
        tag = b2a_base64(_TAG % number, newline=False)
        now = time.perf_counter()
        if self.measuring:
            self.measured += 1
            self._times[number] = now
        message = _MEDIA % (number + 1, number, number * 20, tag, _REST, self._sid_bytes)
        transport.send(WSMsgType.TEXT, message)

    def hang_up(self) -> None:
        if not self.closed and self._transport is not None:
            self._tell({"event": "stop", "streamSid": self._sid, "stop": {}})
            self._transport.send_close()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is not WSMsgType.TEXT:
            if frame.msg_type is WSMsgType.CLOSE:
                transport.disconnect()
            return
        reply = _decode(frame.get_payload_as_bytes())
        if reply.media is not None:
            self._hear(reply.media.payload)
        elif reply.mark is not None and reply.event == "mark":
            wait = self._played_at - time.perf_counter()
            name = reply.mark.name
            asyncio.get_running_loop().call_later(max(wait, 0.0), self._answer, name)

    def _hear(self, audio: bytes) -> None:
        now = time.perf_counter()
        if self._played_at < now:
            self.underruns += self.measuring
            self._played_at = now
        self._played_at += len(audio) / _BYTES_A_SECOND
        for found in _FOUND.finditer(audio):
            sent = self._times.pop(int(found[1]), None)
            if sent is not None:
                self.delays.append(now - sent)

    def _answer(self, name: str) -> None:
        self._tell({"event": "mark", "streamSid": self._sid, "mark": {"name": name}})

    def _tell(self, message: Mapping[str, Any]) -> None:
        if not self.closed and self._transport is not None:
            self._transport.send(WSMsgType.TEXT, msgspec.json.encode(message))


async def pace(streams: list[Stream], seconds: float) -> array[float]:
    """Let every stream say its frames for ``seconds``, spread evenly over each 20 ms. Returns how
    late each round of the loop was, in seconds."""
    late = array("d")
    begin = time.perf_counter()
    step = FRAME_S / len(streams)
    total = round(seconds / step)
    done = 0
    while done < total:
        now = time.perf_counter() - begin
        due = min(int(now / step), total)
        if due > done:
            late.append(now - done * step - _TICK_S)
        # Bounded, so that after a pause what comes back is still read in time.
        due = min(due, done + max(64, len(streams) // 4))
        for number in range(done, due):
            streams[number % len(streams)].say()
        done = due
        await asyncio.sleep(_TICK_S)
    return late
