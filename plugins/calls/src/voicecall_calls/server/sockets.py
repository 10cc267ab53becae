"""One media socket: frames in, media events out, and the rules of RFC 6455 that picows leaves open.

It is a listener of picows, which parses frames and checks opcodes, masks and lengths. picows does
not join fragments, check extension bits or bound what it buffers for a slow peer. It passes the
header of a message over 8 KiB to the transport without copying it: if the transport does not send
it at once, the header of the next message overwrites it.

Everything here runs in the transport's callbacks: no task, lock or log line per frame. The path of
a frame touches few objects of its call (see :mod:`voicecall.pacer`). Callables that are attributes
get a local name before they are called: Python 3.11 otherwise looks up a method every time.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import cast

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from voicecall.errors import MediaProtocolError
from voicecall.media import Audio, MediaCodec, MediaEvent, Message, Started, Upgrade
from voicecall.seam import Seam
from voicecall_calls.doors import Attachment
from voicecall_gateway.floods import FloodLog

from .options import StreamOptions

__all__ = ["MediaConnection"]

CLOSE_GRACE_S = 1.0
"""How long the peer may take to answer our close frame before the connection is cut."""
KEPT_LIMIT = 1024 * 1024
MAX_GARBAGE = 50
_SHORT = 2048
"""A message with at most this many characters is certainly not over 8 KiB."""
_HEAD = 14
"""Room for the header of a message."""
_NO_UTF8 = "Text is not UTF-8"

logger = logging.getLogger("voicecall.calls.server")
# Access to a member of an enumeration runs Python code every time.
_TEXT = WSMsgType.TEXT


class MediaConnection(WSListener):
    """A :class:`~voicecall_calls.doors.MediaSocket` over picows.

    ``started`` is called once with the carrier's start message, ``gone`` once at the end.
    :meth:`opened` admits the socket; until then events are kept, and ``refused`` counts closes.
    """

    __slots__ = (
        "_attachment",
        "_bytes_type",
        "_closing",
        "_connected",
        "_deadline",
        "_failed",
        "_garbage",
        "_gone",
        "_hear",
        "_kept",
        "_kept_bytes",
        "_listener",
        "_log",
        "_monotonic",
        "_on_started",
        "_options",
        "_over",
        "_parts",
        "_parts_type",
        "_refused",
        "_started",
        "_transport",
        "codec",
        "heard_at",
        "upgrade",
    )

    def __init__(
        self,
        upgrade: Upgrade,
        codec: MediaCodec,
        options: StreamOptions,
        *,
        seam: Seam,
        log: FloodLog,
        refused: Counter[int],
        connected: Callable[[MediaConnection], None],
        started: Callable[[MediaConnection, Started], None],
        gone: Callable[[MediaConnection], None],
    ) -> None:
        self.upgrade = upgrade
        self.heard_at = -math.inf
        self._monotonic = seam.monotonic
        self.codec = codec
        self._options = options
        self._log = log
        self._refused = refused
        self._connected = connected
        self._on_started = started
        self._gone = gone
        self._bytes_type = WSMsgType.BINARY if getattr(codec, "binary", False) else WSMsgType.TEXT
        self._transport: WSTransport | None = None
        self._attachment: Attachment | None = None
        self._listener: Callable[[bytes], None] | None = None
        self._hear: Callable[[bytes], None] | None = None
        """The listener, once the kept events are delivered."""
        self._failed: Callable[[BaseException], None] | None = None
        self._started = False
        self._closing = False
        self._over = False
        self._parts: bytearray | None = None
        self._parts_type = WSMsgType.TEXT
        self._kept: list[MediaEvent] = []
        self._kept_bytes = 0
        self._garbage = 0
        self._deadline: asyncio.TimerHandle | None = None

    # --- MediaSocket ------------------------------------------------------------------------

    @property
    def buffered(self) -> int:
        """Bytes not yet handed to the network."""
        transport = self._transport
        if transport is None or self._over:
            return 0
        return transport.underlying_transport.get_write_buffer_size()

    def send(self, message: Message) -> None:
        """Send one message, also ``bytes`` as text unless the codec's ``binary`` is true."""
        transport = self._transport
        if transport is None or self._closing:
            return
        kind = _TEXT if type(message) is str else self._bytes_type
        if len(message) <= _SHORT:
            transport.send(kind, message)
        else:
            whole = bytearray(_HEAD)
            whole += message.encode() if isinstance(message, str) else message
            transport.send_reuse_external_bytearray(kind, whole, _HEAD)

    def play(self, audio: bytes) -> None:
        """Send audio for the caller."""
        try:
            self.send(self.codec.audio(audio))
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a codec can raise anything)
            self._broken(error)

    def listen(
        self,
        listener: Callable[[bytes], None],
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Deliver caller audio to ``listener`` from now on, and what it raises to ``failed``."""
        self._listener = listener
        self._failed = failed
        if self._hear is not None:
            self._hear = listener

    def close(self, code: int, reason: str) -> None:
        """Close with an RFC 6455 code; the reason is cut to the 123 bytes that fit."""
        transport = self._transport
        if transport is None or self._closing:
            return
        if self._attachment is None:
            self._refused[code] += 1
        info = self._log.info if self._attachment is None else logger.info
        info("media socket of %s closed: %d %s", self.upgrade.client, code, reason)
        text = reason.encode()[:123].decode(errors="ignore")
        transport.send_close(cast(WSCloseCode, code), text.encode())
        self.closing()

    # --- life -------------------------------------------------------------------------------

    def look_after(self) -> None:
        """Must be called periodically: after a protocol error picows closes the socket without
        notifying its listener."""
        if self._transport is not None and self._transport.is_close_frame_sent:
            self.closing()

    def closing(self) -> None:
        """The close handshake has begun, or the peer has disconnected. Cuts the connection if it
        is still open after a while: a peer that does not read would keep it open forever."""
        transport = self._transport
        if transport is None or self._closing:
            return
        self._closing = True
        self._kept.clear()
        self._parts = None
        self._arm(CLOSE_GRACE_S, lambda: transport.disconnect(graceful=False))

    def _arm(self, seconds: float, action: Callable[[], None]) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, action)

    def opened(self, attachment: Attachment) -> None:
        """The engine has admitted the socket: deliver the kept events, then new ones directly."""
        if self._over:
            _tell_closed(attachment)
            return
        self._attachment = attachment
        if self._closing:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        kept, self._kept = self._kept, []
        for event in kept:
            self._deliver(attachment, event)
        self._hear = self._listener

    # --- picows -----------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(self._options.send_limit)
        self._arm(
            self._options.pre_start_timeout_ms / 1000, lambda: self.close(1008, "Start timeout")
        )
        self._connected(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._closing = self._over = True
        self._kept.clear()
        if self._deadline is not None:
            self._deadline.cancel()
        if self._garbage:
            text = "media socket of %s sent %d malformed messages"
            self._log.info(text, self.upgrade.client, self._garbage)
        self._gone(self)
        if self._attachment is not None:
            _tell_closed(self._attachment)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        whole = frame.msg_type is _TEXT and frame.fin and self._parts is None
        over = self._closing or transport.is_close_frame_sent
        if not whole or over or frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._other_frame(transport, frame)
            return
        try:
            message = frame.get_payload_as_utf8_text()
        except UnicodeDecodeError:
            self.close(1007, _NO_UTF8)
            return
        hear = self._hear
        try:
            if hear is None or (audio := self.codec.caller_audio(message)) is None:
                self._received(message)
                return
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a codec can raise anything)
            self._broken(error)
            return
        monotonic = self._monotonic
        self.heard_at = monotonic()
        try:
            hear(audio)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a vendor's listener)
            self._not_heard(error)

    def _not_heard(self, error: BaseException) -> None:
        """The listener has raised ``error``."""
        if self._failed is not None:
            self._failed(error)
        else:
            self._broken(error, "caller audio failed")

    def _broken(self, error: BaseException, what: str = "media codec failed") -> None:
        if not self._closing:
            logger.error(what, exc_info=error)
            self.close(1011, "Internal error")

    def _other_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle any frame but an unfragmented text message, the form of audio."""
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            self._peer_closes(transport, frame)
        elif self._closing or transport.is_close_frame_sent:
            self.closing()
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(1002, "Extension bits without an extension")
        elif kind is WSMsgType.BINARY and frame.fin and self._parts is None:
            self._received(frame.get_payload_as_bytes())
        elif kind is WSMsgType.PING:
            # Not left to picows: the pongs to a peer that never reads would pile up.
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind is not WSMsgType.PONG:
            self._fragment(kind, frame)

    def pause_writing(self) -> None:
        """The peer is too slow: more than the send limit is buffered."""
        self.close(1013, "Backpressure: send buffer exceeded")

    def resume_writing(self) -> None:
        """Nothing to do: the socket is being closed."""

    def _peer_closes(self, transport: WSTransport, frame: WSFrame) -> None:
        if not transport.is_close_frame_sent:
            code = frame.get_close_code()
            transport.send_close(WSCloseCode.OK if code == WSCloseCode.NO_INFO else code)
        self.closing()
        transport.disconnect()

    def _fragment(self, kind: WSMsgType, frame: WSFrame) -> None:
        if kind is WSMsgType.CONTINUATION:
            if self._parts is None:
                self.close(1002, "Continuation without a message")
                return
        elif self._parts is not None:
            self.close(1002, "A new message inside a fragmented one")
            return
        else:
            self._parts = bytearray()
            self._parts_type = kind
        self._parts += frame.get_payload_as_bytes()
        if len(self._parts) > self._options.frame_limit:
            self.close(1009, "Message too long")
            return
        if not frame.fin:
            return
        whole, self._parts = bytes(self._parts), None
        try:
            message = whole if self._parts_type is WSMsgType.BINARY else whole.decode()
        except UnicodeDecodeError:
            self.close(1007, _NO_UTF8)
            return
        self._received(message)

    # --- events -----------------------------------------------------------------------------

    def _received(self, message: Message) -> None:
        try:
            event = self.codec.decode(message)
        except MediaProtocolError as error:
            self._malformed(error)
            return
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a codec can raise anything)
            self._broken(error)
            return
        if event is None:
            return
        attachment = self._attachment
        if attachment is not None and type(event) is not Started:
            self._deliver(attachment, event)
        else:
            self._before_open(event, len(message))

    def _deliver(self, attachment: Attachment, event: MediaEvent) -> None:
        if self._closing:
            return
        listener = self._listener
        if listener is not None and type(event) is Audio:
            self.heard_at = self._monotonic()
            try:
                listener(event.payload)
            except (Exception, SystemExit) as error:  # noqa: BLE001 (a vendor's listener)
                self._not_heard(error)
            return
        try:
            attachment.received(event)
        except Exception as error:  # noqa: BLE001 (a call's code can raise anything)
            self._broken(error, f"media event {type(event).__name__} failed")

    def _before_open(self, event: MediaEvent, size: int) -> None:
        if isinstance(event, Started):
            if self._started:
                self.close(1008, "Duplicate start")
            elif not (event.provider_call_id and event.stream_id):
                self.close(1008, "Start without call or stream")
            else:
                self._started = True
                self._on_started(self, event)
        elif not self._started:
            self.close(1008, "Start expected")
        else:
            self._kept_bytes += size
            if self._kept_bytes > KEPT_LIMIT:
                self.close(1013, "Too much data before admission")
            else:
                self._kept.append(event)

    def _malformed(self, error: MediaProtocolError) -> None:
        self._garbage += 1
        if self._garbage == 1:
            text = "malformed message on the media socket of %s: %s"
            logger.debug(text, self.upgrade.client, type(error).__name__)
        if self._garbage >= MAX_GARBAGE:
            self.close(1008, "Too many malformed messages")


def _tell_closed(attachment: Attachment) -> None:
    try:
        attachment.closed()
    except Exception:
        logger.exception("closing a media attachment failed")
