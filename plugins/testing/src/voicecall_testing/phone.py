"""A carrier's media socket and the phone at its far end, without a network.

It plays audio in real time by the clock of the event loop, which may be virtual. It returns marks
when they are reached, or at once on a clear, and sends what the caller says in frames.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import anyio

from voicecall.audio import MULAW_8K, AudioFormat
from voicecall.media import Audio, Dtmf, MarkReached, MediaCodec, MediaEvent, Message, Stopped
from voicecall_testing.fakes import ScriptedCodec

__all__ = ["MediaListener", "PhoneSocket"]

_FRAME_MS = 20


class MediaListener(Protocol):
    """Receives the events of a socket."""

    def received(self, event: MediaEvent) -> None: ...

    def closed(self) -> None: ...


@dataclass(slots=True)
class _Played:
    """Audio that is being played since ``begun`` (loop time, seconds)."""

    payload: bytes
    begun: float


class PhoneSocket:
    """A media socket; start :meth:`run`, which plays the audio, as a task. ``sent`` are the
    gateway's messages in order, ``heard`` is the audio that has been played. If ``returns_marks``
    is false, no mark comes back. If ``takes_tones`` is false, its codec cannot send digits."""

    def __init__(
        self,
        stream_id: str,
        *,
        audio_format: AudioFormat = MULAW_8K,
        returns_marks: bool = True,
        takes_tones: bool = True,
    ) -> None:
        self.stream_id = stream_id
        self.format = audio_format
        self.returns_marks = returns_marks
        self.listener: MediaListener | None = None
        self._hear: Callable[[bytes], None] | None = None
        self._failed: Callable[[BaseException], None] | None = None
        self.heard_at = -math.inf
        self.sent: list[Message] = []
        self.digits: list[str] = []
        self.clears = 0
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._codec = ScriptedCodec(tones=takes_tones)
        self._queue: deque[bytes | str] = deque()
        self._playing: _Played | None = None
        self._heard = bytearray()
        self._news = anyio.Event()
        self._cleared = anyio.Event()
        self._closed = anyio.Event()

    # --- the gateway's side (voicecall_calls.doors.MediaSocket) ---

    @property
    def codec(self) -> MediaCodec:
        return self._codec

    @property
    def buffered(self) -> int:
        return 0

    def send(self, message: Message) -> None:
        if self.close_code is not None:
            return
        self.sent.append(message)
        event = self._codec.decode(message)
        match event:
            case Audio(payload):
                self._queue.append(payload)
            case MarkReached(name):
                self._queue.append(name)
            case Dtmf(digits):
                self.digits.append(digits)
            case _:
                self._clear()
        self._news.set()

    def play(self, audio: bytes) -> None:
        self.send(self._codec.audio(audio))

    def listen(
        self,
        listener: Callable[[bytes], None],
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._hear = listener
        self._failed = failed

    def close(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
            self._closed.set()

    # --- the phone's side ---

    def drop(self) -> None:
        """Break the connection."""
        self.close(1006, "dropped")

    def stop(self) -> None:
        """Report, as the carrier, that the stream is over."""
        self._tell(Stopped("hung up"))

    def press(self, digits: str) -> None:
        self._tell(Dtmf(digits))

    async def speak(self, audio: bytes) -> None:
        """Say something, frame by frame in real time."""
        size = self.format.size(_FRAME_MS)
        for start in range(0, len(audio), size):
            self._tell(Audio(audio[start : start + size], 0))
            await anyio.sleep(_FRAME_MS / 1000)

    @property
    def heard(self) -> bytes:
        playing = self._playing
        return bytes(self._heard) + (self._part(playing) if playing is not None else b"")

    @property
    def audio_sent(self) -> bytes:
        """All audio that the gateway sent, played or not."""
        events = [self._codec.decode(message) for message in self.sent]
        return b"".join(event.payload for event in events if isinstance(event, Audio))

    @property
    def marks(self) -> list[str]:
        """The names of all marks that the gateway sent, reached or not."""
        events = [self._codec.decode(message) for message in self.sent]
        return [event.name for event in events if isinstance(event, MarkReached)]

    def _tell(self, event: MediaEvent) -> None:
        if self.listener is None or self.close_code is not None:
            return
        if isinstance(event, Audio) and self._hear is not None:
            self.heard_at = asyncio.get_running_loop().time()
            try:
                self._hear(event.payload)
            except (Exception, SystemExit) as error:
                if self._failed is None:
                    raise
                self._failed(error)
        else:
            self.listener.received(event)

    def _clear(self) -> None:
        self.clears += 1
        names = [item for item in self._queue if isinstance(item, str)]
        self._queue.clear()
        if self._playing is not None:
            self._cleared.set()
        for name in names:
            self._return(name)

    def _return(self, name: str) -> None:
        if self.returns_marks:
            self._tell(MarkReached(name))

    async def run(self) -> None:
        """Play until the socket is closed, then tell the listener."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._play)
            await self._closed.wait()
            tasks.cancel_scope.cancel()
        if self.listener is not None:
            self.listener.closed()

    async def _play(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            while not self._queue:
                self._news = anyio.Event()
                await self._news.wait()
            item = self._queue.popleft()
            if isinstance(item, str):
                self._return(item)
                continue
            self._playing = _Played(item, now())
            self._cleared = anyio.Event()
            try:
                with anyio.move_on_after(self.format.duration_ms(len(item)) / 1000):
                    await self._cleared.wait()
            finally:
                # If the socket closes during a piece, the part that was played counts as heard.
                self._heard += self._part(self._playing)
                self._playing = None

    def _part(self, playing: _Played) -> bytes:
        """The part of it that has been played."""
        elapsed_s = asyncio.get_running_loop().time() - playing.begun
        return playing.payload[: self.format.size(elapsed_s * 1000 + 0.01)]
