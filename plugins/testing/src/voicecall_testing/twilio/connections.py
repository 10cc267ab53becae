"""The media streams of one call."""

from __future__ import annotations

import anyio
import anyio.abc

from voicecall_mock.exchange.line import CarrierLine

from .board import TwilioBoard, new_sid
from .delivery import CallbackLane
from .parameters import iso8601
from .streams import TwilioStream
from .twiml import Stream, socket_url_error

__all__ = ["CallStreams"]

CONNECT_TIMEOUT, NO_UPGRADE, CLOSED_BY_SERVER, WRONG_SCHEME = 31901, 31920, 31921, 31922


class CallStreams:
    """The media streams of a call, at most one at a time on ``line``. ``all`` are those that were
    tried. Their sockets run in ``tasks``, the task group of the call."""

    def __init__(
        self,
        board: TwilioBoard,
        call_sid: str,
        line: CarrierLine,
        lane: CallbackLane,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self.all: list[TwilioStream] = []
        self._board = board
        self._call_sid = call_sid
        self._account_sid = board.options.account_sid
        self.line = line
        self._lane = lane
        self._tasks = tasks
        self._stream: TwilioStream | None = None

    def end(self) -> None:
        """Note that the call is over; its socket closes by itself."""
        if self._stream is not None:
            self.stream_closed(self._stream)

    async def connect(self, verb: Stream) -> None:
        """Open a stream, and wait until it is over."""
        board = self._board
        stream = TwilioStream(
            verb,
            new_sid(board.seam, "MZ"),
            self._account_sid,
            self._call_sid,
            self,
            board,
            board.signer.headers(verb.url, {}),
        )
        if (wrong := socket_url_error(verb.url)) is not None:
            stream.error = f"{WRONG_SCHEME}: {wrong}"
            self._error(WRONG_SCHEME, wrong)
            self._tell_of_stream(stream, "stream-error")
            return
        if "?" in verb.url:
            self.stream_warning(stream, 0, "the query of a stream's URL does not count")
        self._stream = stream
        self.all.append(stream)
        ended = anyio.Event()

        async def run() -> None:
            try:
                await stream.run()
            finally:
                ended.set()

        self._tasks.start_soon(run)
        try:
            await ended.wait()
        finally:
            # A redirect does not wait for the old socket to close.
            self.stream_closed(stream)
            stream.stop("the document ended")

    def _error(self, code: int, message: str) -> None:
        self._board.ledger.add("error", self._call_sid, code=code, message=message)

    def stream_opened(self, stream: TwilioStream) -> None:
        self._board.ledger.add("stream-opened", self._call_sid, stream=stream.sid, url=stream.url)
        self._tell_of_stream(stream, "stream-started")
        if stream is self._stream:
            self.line.attach(stream)
        self._disturb(stream)

    def stream_closed(self, stream: TwilioStream) -> None:
        """Note that a stream has closed or is closing; idempotent."""
        if stream is not self._stream:
            return
        self._stream = None
        self.line.attach(None)
        self._board.ledger.add(
            "stream-closed", self._call_sid, stream=stream.sid, error=stream.error
        )
        if stream.error is not None and stream.error.startswith("cannot connect"):
            timed_out = "TimeoutError" in stream.error or "timed out" in stream.error
            self._error(CONNECT_TIMEOUT if timed_out else NO_UPGRADE, stream.error)
        elif stream.close_code is not None:
            self.stream_warning(stream, CLOSED_BY_SERVER, f"closed with {stream.close_code}")
        self._tell_of_stream(stream, "stream-stopped" if stream.error is None else "stream-error")

    def stream_warning(self, stream: TwilioStream, code: int, message: str) -> None:
        self._board.ledger.add(
            "warning", self._call_sid, code=code, message=message, stream=stream.sid
        )

    def _tell_of_stream(self, stream: TwilioStream, event: str) -> None:
        verb = stream.verb
        if verb.status_callback is None:
            return
        params = {
            "AccountSid": self._account_sid,
            "CallSid": self._call_sid,
            "StreamSid": stream.sid,
            "StreamName": verb.name or stream.sid,
            "StreamEvent": event,
            "Timestamp": iso8601(self._board.seam.now_ms()),
        }
        if event == "stream-error":
            params["StreamError"] = stream.error or ""
        self._lane.post("stream-status", verb.status_callback, verb.status_callback_method, params)

    def _disturb(self, stream: TwilioStream) -> None:
        """Decide whether and when a fault breaks this stream."""
        faults = self._board.faults
        fault = faults.sockets
        drop, stall = faults.happens(fault.drop), faults.happens(fault.stall)
        if drop or stall:
            after_s = faults.dice.random() * fault.within_s
            self._tasks.start_soon(self._break_later, stream, after_s, drop)

    async def _break_later(self, stream: TwilioStream, after_s: float, drop: bool) -> None:
        await anyio.sleep(after_s)
        self.break_one(stream, drop=drop)

    def break_one(self, stream: TwilioStream | None = None, *, drop: bool) -> bool:
        """Drop or stall ``stream``, by default the open one; returns False if it is not open."""
        if self._stream is None or stream not in (None, self._stream):
            return False
        self._board.ledger.add(
            "stream-dropped" if drop else "stream-stalled", self._call_sid, stream=self._stream.sid
        )
        if drop:
            self._stream.drop("the connection broke")
        else:
            self._stream.stall()
        return True
