"""The logical audio line of a call. Carrier sockets come and go; the line stays.

Caller audio goes to one listener by a plain call. Audio for the caller goes through the pacer. If
a socket is lost, audio that it did not confirm is sent again on the next one. Marks confirm audio;
while caller audio arrives, the connection is alive, so the clock confirms too and marks are rarer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import anyio

from voicecall import MULAW_8K, AudioFormat
from voicecall.media import Dtmf, MarkReached, MediaError, MediaEvent, Message, Started, Stopped
from voicecall.pacer import Heard, OutAudio, Pacer, PacerOverflow
from voicecall.seam import Seam
from voicecall_calls.doors import Attachment, MediaSocket
from voicecall_calls.news import News

__all__ = ["AudioLine"]

_log = logging.getLogger("voicecall.media")
_Make = Callable[[], Message | None]
_LONGEST_MS = 600_000
"""Audio that may wait to be sent in a call; more is dropped. Voices synthesise minutes of speech in
seconds."""
_MARK_PATIENCE = 2.0
"""Seconds after the end of the audio until a missing mark counts as reached."""
_ON_THE_WAY = 0.1
"""Seconds that a carrier's message may have been in transit: audio should be heard twice rather
than not at all."""
_ALIVE = 0.1
"""If caller audio came within this many seconds, the connection also carries ours."""


class AudioLine:
    """Caller audio in and bot audio out, over whichever socket is current.

    ``digits`` is called with the stream's id and the pressed keys, ``lost`` with the id of a stream
    that went away while it was current. The formats are those of the newest socket, or ``expects``
    before the first."""

    # As in the pacer: a frame should look at few objects.
    __slots__ = (
        "_attached",
        "_digits",
        "_dropped",
        "_first_sent",
        "_first_written",
        "_listener",
        "_lost",
        "_marks",
        "_monotonic",
        "_outlet",
        "_paused",
        "_progress",
        "_seam",
        "_underruns",
        "_work",
        "began",
        "call_id",
        "current",
        "failed",
        "input_format",
        "output_format",
        "pacer",
    )

    def __init__(
        self,
        seam: Seam,
        *,
        call_id: str,
        marks: bool,
        lost: Callable[[str], None],
        digits: Callable[[str, str], None],
        expects: AudioFormat = MULAW_8K,
    ) -> None:
        self._listener: Callable[[bytes], None] = _drop
        self.call_id = call_id
        """For the log."""
        self.failed: Callable[[BaseException], None] | None = None
        """Called with what the listener raises; without it the socket is closed."""
        self.began: Callable[[], None] = _nothing
        """Called at the first audio of an item."""
        self.input_format = expects
        self.output_format = expects
        self._marks = marks
        self.pacer = self._new_pacer()
        self._seam = seam
        self._monotonic = seam.monotonic
        self._lost = lost
        self._digits = digits
        self.current: _LineSocket | None = None
        self._outlet: MediaSocket | None = None
        """The current socket, unless the line is paused."""
        self._paused = False
        self._underruns = 0
        self._work = News()
        self._progress = News()
        self._dropped: str | None = None
        """The item whose audio was dropped last."""
        self._first_sent: dict[str, int] = {}
        self._first_written: dict[str, int] = {}
        self._attached = anyio.Event()

    # --- sockets ----------------------------------------------------------------------------

    def attach(self, socket: MediaSocket, started: Started) -> Attachment:
        """Make ``socket`` the current one; its predecessor is closed as replaced."""
        previous = self.current
        self.current = _LineSocket(self, socket, started.stream_id)
        socket.listen(self._listener, self.failed)
        self.input_format = started.input_format
        self.output_format = started.output_format
        if self.pacer.format != self.output_format:
            # Waiting audio of another format would be played as noise.
            self.pacer = self._new_pacer()
            self._progress.tell()
        if previous is not None:
            self.pacer.rewind(previous.socket.heard_at - _ON_THE_WAY)
            previous.socket.close(1000, "Replaced")
        self._open_outlet()
        self._attached.set()
        self._work.tell()
        return self.current

    def _new_pacer(self) -> Pacer:
        return Pacer(self.output_format, limit_ms=_LONGEST_MS, marks=self._marks)

    def _open_outlet(self) -> None:
        self._outlet = None if self._paused else self.socket

    def detached(self, attachment: _LineSocket) -> None:
        """The socket of ``attachment`` is gone."""
        if self.current is not attachment:
            return
        self.current = self._outlet = None
        self._attached = anyio.Event()
        self.pacer.rewind(attachment.socket.heard_at - _ON_THE_WAY)
        self._lost(attachment.stream_id)

    @property
    def socket(self) -> MediaSocket | None:
        return self.current.socket if self.current is not None else None

    @property
    def heard_at(self) -> float:
        """When the last caller audio came over the current socket, by the monotonic clock."""
        return self.current.socket.heard_at if self.current is not None else -math.inf

    async def attached(self) -> None:
        """Wait for a socket."""
        await self._attached.wait()

    def close(self) -> None:
        """Close the socket for good: the call is over."""
        current, self.current = self.current, None
        self._outlet = None
        if current is not None:
            current.socket.close(1000, "Call ended")

    # --- audio in ---------------------------------------------------------------------------

    def listen(self, listener: Callable[[bytes], None]) -> None:
        """Caller audio goes to ``listener`` from now on."""
        self._listener = listener
        if self.current is not None:
            self.current.socket.listen(listener, self.failed)

    # --- audio out --------------------------------------------------------------------------

    def write(self, item_id: str, audio: bytes) -> None:
        """Queue audio for the caller (an :class:`voicecall.media.AudioSink`)."""
        socket = self._outlet
        if socket is not None:
            # Audio in real time is sent at once, without waking a task for each frame.
            monotonic = self._monotonic
            mark = self.pacer.pass_on(item_id, audio, monotonic())
            if mark is not None:
                socket.play(audio)
                if mark:
                    self._send_mark(socket, mark)
                return
        self._queue(item_id, audio)

    def _queue(self, item_id: str, audio: bytes) -> None:
        if item_id not in self._first_written:
            self._first_written[item_id] = self._seam.now_ms()
            self.began()
        pacer = self.pacer
        waiting = pacer.waiting
        try:
            pacer.write(item_id, audio)
        except PacerOverflow as error:
            if self._dropped != item_id:
                self._dropped = item_id
                text = "call %s: audio for the caller is dropped: %s"
                _log.warning(text, self.call_id, error)
            return
        if waiting or self._outlet is None:
            # The task wakes anyway, at its timer or when there is an outlet again.
            return
        self._pump()
        if pacer.wake_at() is not None:
            self._work.tell()

    def finish(self, item_id: str) -> None:
        """No more audio of this item will be written."""
        self.pacer.finish(item_id)
        if not self.pacer.waiting:
            # The mark after its last audio was waiting for this.
            self._pump()
        self._progress.tell()

    async def run(self) -> None:
        """Send the audio when it is due. One task per call, woken by audio, sockets and timers."""
        while True:
            self._pump()
            wake_at = self.pacer.wake_at() if self._outlet is not None else None
            left_s = None
            if wake_at is not None:
                # Timers have whole milliseconds; one that fires early would have to fire twice.
                left_s = max(math.ceil((wake_at - self._monotonic()) * 1000), 1) / 1000
            await self._work.wait(left_s)

    def _pump(self) -> None:
        socket = self._outlet
        if socket is None:
            return
        for out in self.pacer.poll(self._monotonic()):
            if isinstance(out, OutAudio):
                if out.item not in self._first_sent:
                    self._first_sent[out.item] = self._seam.now_ms()
                socket.play(out.payload)
            else:
                self._send_mark(socket, out.name)
        if self.pacer.underruns != self._underruns:
            self._underruns = self.pacer.underruns
            self._progress.tell()

    def _send_mark(self, socket: MediaSocket, name: str) -> None:
        """Send a mark, if the carrier has them."""
        self._command(socket, partial(socket.codec.mark, name))
        self.pacer.assured = self._monotonic() - socket.heard_at < _ALIVE

    async def played(self, item_id: str) -> Heard:
        """Wait until the caller has heard all of a finished item."""
        while self.pacer.pending(item_id):
            patience = self.pacer.drain_ms(self._monotonic()) / 1000 + _MARK_PATIENCE
            told = await self._progress.wait(patience)
            drained = self.pacer.drain_ms(self._monotonic()) == 0
            if not told and self.current is not None and drained:
                text = "call %s: the carrier returned no mark in time; the audio counts as played"
                _log.warning(text, self.call_id)
                break
        return self.pacer.heard(item_id, self._monotonic())

    def size(self, item_id: str) -> int:
        """Bytes of an item that were or will be heard."""
        return self.pacer.size(item_id)

    def heard_ms(self, item_id: str) -> float:
        return self.pacer.heard(item_id, self._monotonic()).milliseconds

    def clear(self) -> dict[str, Heard]:
        """Drop all unheard audio, here and at the carrier, and end a pause."""
        heard = self.pacer.clear(self._monotonic())
        self._paused = False
        self._open_outlet()
        if (socket := self.socket) is not None:
            self._command(socket, socket.codec.clear)
        self._progress.tell()
        return heard

    def pause(self) -> None:
        """Fall silent at once. Unheard audio waits for :meth:`resume`."""
        self._paused = True
        self._outlet = None
        socket = self.socket
        if socket is not None and (message := self._made(socket, socket.codec.clear)) is not None:
            # Before the clear is sent: the carrier may return the marks of audio that it discards.
            self.pacer.rewind(self._monotonic())
            socket.send(message)
            self._progress.tell()

    def resume(self) -> None:
        """Go on from what the caller heard last."""
        self._paused = False
        self._open_outlet()
        self._work.tell()

    def first_written(self, item_id: str) -> int | None:
        """When the first audio of an item was written, milliseconds since the epoch."""
        return self._first_written.get(item_id)

    def first_sent(self, item_id: str) -> int | None:
        """When the first audio of an item was sent, milliseconds since the epoch."""
        return self._first_sent.get(item_id)

    def forget(self, item_id: str) -> None:
        """Drop what is kept about an item that is over."""
        self.pacer.forget(item_id)
        self._first_sent.pop(item_id, None)
        self._first_written.pop(item_id, None)

    def send_digits(self, digits: str) -> bool:
        """Play keypad tones through the socket; False if the carrier cannot."""
        socket = self.socket
        return socket is not None and self._command(socket, partial(socket.codec.digits, digits))

    def _command(self, socket: MediaSocket, make: _Make) -> bool:
        """Send the message that the codec's ``make`` returns; False if there is none."""
        message = self._made(socket, make)
        if message is not None:
            socket.send(message)
        return message is not None

    def _made(self, socket: MediaSocket, make: _Make) -> Message | None:
        """What the codec's ``make`` returns. If it fails, only the socket is closed."""
        try:
            return make()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a codec can raise anything)
            _log.error("call %s: the media codec failed", self.call_id, exc_info=error)
            socket.close(1011, "Internal error")
            return None

    # --- events of the current socket -------------------------------------------------------

    def received(self, attachment: _LineSocket, event: MediaEvent) -> None:
        """Handle an event of the current socket; others are ignored. Audio does not come here but
        to the listener."""
        if attachment is not self.current:
            return
        if type(event) is MarkReached:
            # First, since several come each second.
            if self.pacer.mark_reached(event.name):
                self._progress.tell()
            return
        match event:
            case Dtmf(digits):
                self._digits(attachment.stream_id, digits)
            case MediaError(message):
                text = "call %s: the carrier reports a media error: %s"
                _log.warning(text, self.call_id, message)
            case Stopped():
                self._outlet = None
                self.pacer.rewind(self._monotonic() - _ON_THE_WAY)
                attachment.socket.close(1000, "Stopped")


class _LineSocket(Attachment):
    __slots__ = ("_line", "socket", "stream_id")

    def __init__(self, line: AudioLine, socket: MediaSocket, stream_id: str) -> None:
        self._line = line
        self.socket = socket
        self.stream_id = stream_id

    def received(self, event: MediaEvent) -> None:
        self._line.received(self, event)

    def closed(self) -> None:
        self._line.detached(self)


def _drop(audio: bytes) -> None:
    """The listener before :meth:`AudioLine.listen`."""


def _nothing() -> None:
    """The default of :attr:`AudioLine.began`."""
