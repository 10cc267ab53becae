"""Pays audio out to a carrier with a bounded lead, and knows what the caller has heard.

The pacer is pure: the caller passes the time in and sends what comes out. A piece of audio
belongs to an item (an utterance). After every stretch of audio a mark is sent, also after the
last of a finished item; when the carrier returns it, everything before it has been played.
Between marks, what was heard is estimated from the clock and never goes past the next mark.
"""

from __future__ import annotations

from dataclasses import dataclass

from .audio.formats import AudioFormat

__all__ = ["Heard", "OutAudio", "OutMark", "Pacer", "PacerOverflow"]

_EXACT_MS = 0.001
"""Sums of seconds fall short of whole samples by less than this."""


class PacerOverflow(Exception):
    """More audio was queued than the pacer may hold."""


@dataclass(frozen=True, slots=True)
class OutAudio:
    """Audio of ``item`` to send now."""

    payload: bytes
    item: str


@dataclass(frozen=True, slots=True)
class OutMark:
    name: str


@dataclass(frozen=True, slots=True)
class Heard:
    """Milliseconds of an item that the caller heard, and whether that is all of it."""

    milliseconds: float
    complete: bool


@dataclass(slots=True)
class _Piece:
    item: str
    audio: bytes


@dataclass(slots=True)
class _Sent:
    """Audio on its way to the caller: bytes [start, end) of ``item`` on the output clock."""

    item: str
    audio: bytes
    starts_at: float
    ends_at: float
    mark: str | None = None


class Pacer:
    """One a call.

    ``lead_ms``: how far the carrier's buffer may run ahead of the clock. ``chunk_ms``: the
    largest message. ``mark_ms``: a mark at least this often. ``limit_ms``: audio that may wait.
    With ``marks`` false (a carrier without them) the clock alone decides what was heard.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        lead_ms: int = 200,
        chunk_ms: int = 60,
        mark_ms: int = 240,
        limit_ms: int = 120_000,
        marks: bool = True,
    ) -> None:
        self.format = audio_format
        self._lead = lead_ms / 1000
        self._chunk = audio_format.size(chunk_ms)
        self._mark_every = audio_format.size(mark_ms)
        self._limit = audio_format.size(limit_ms)
        self._bytes_per_second = audio_format.bytes_per_second
        self._marks = marks
        # Lists: taking the first of some hundreds costs no more than from a deque, which is large
        # even when it is empty.
        self._queue: list[_Piece] = []
        self._queued = 0
        self._in_flight: list[_Sent] = []
        self._heard: dict[str, int] = {}
        self._unfinished: set[str] = set()
        self._last_item: str | None = None
        self._next_at = 0.0
        self._mark_count = 0
        self._since_mark = 0
        self.underruns = 0

    # --- input ------------------------------------------------------------------------------

    def write(self, item: str, audio: bytes) -> None:
        """Queue audio of ``item``. Raises :exc:`PacerOverflow` past the limit."""
        if not audio:
            return
        if self._queued + len(audio) > self._limit:
            raise PacerOverflow(f"more than {self._limit} bytes of audio are waiting")
        self._unfinished.add(item)
        self._queue.append(_Piece(item, audio))
        self._queued += len(audio)

    def finish(self, item: str) -> None:
        """No more audio of ``item`` will come."""
        self._unfinished.discard(item)

    # --- output -----------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is on its way."""
        return not self._queue and not self._in_flight

    @property
    def waiting(self) -> bool:
        """Audio waits for its time."""
        return bool(self._queue)

    def pass_on(self, item: str, audio: bytes, now: float) -> list[OutAudio | OutMark]:
        """:meth:`write` and :meth:`poll` in one. Audio that comes in real time is never queued."""
        at_once = not self._queue and self._next_at - now < self._lead
        if not at_once or not 0 < len(audio) <= self._chunk:
            self.write(item, audio)
            return self.poll(now)
        self._unfinished.add(item)
        out: list[OutAudio | OutMark] = []
        self._catch_up(now)
        self._send(item, audio, out)
        if not self._marks:
            self._settle_by_clock(now)
        return out

    def poll(self, now: float) -> list[OutAudio | OutMark]:
        """What to send at ``now`` (seconds on any steady clock), in order."""
        out: list[OutAudio | OutMark] = []
        if self._queue:
            self._catch_up(now)
        while self._queue and self._next_at - now < self._lead:
            item, audio = self._take()
            self._send(item, audio, out)
        if not self._marks:
            self._settle_by_clock(now)
        elif not self._queue and self._in_flight:
            # Only now is it known that no more of the item comes.
            last = self._in_flight[-1]
            if last.mark is None and last.item not in self._unfinished:
                out.append(self._mark(last))
        return out

    def _catch_up(self, now: float) -> None:
        if self._next_at < now:
            if self._last_item in self._unfinished:
                self.underruns += 1
            self._next_at = now

    def _send(self, item: str, audio: bytes, out: list[OutAudio | OutMark]) -> None:
        starts_at = self._next_at
        self._next_at = ends_at = starts_at + len(audio) / self._bytes_per_second
        sent = _Sent(item, audio, starts_at, ends_at)
        self._in_flight.append(sent)
        self._last_item = item
        self._since_mark += len(audio)
        out.append(OutAudio(audio, item))
        if self._marks and self._mark_due(item, len(audio)):
            out.append(self._mark(sent))

    def _mark_due(self, item: str, size: int) -> bool:
        if self._since_mark >= self._mark_every:
            return True
        if self._queue:
            return self._queue[0].item != item
        # A live stream leaves in pieces smaller than a chunk; a mark after each would double the
        # messages.
        return size >= self._chunk

    def _mark(self, sent: _Sent) -> OutMark:
        sent.mark = f"vc-{self._mark_count}"
        self._mark_count += 1
        self._since_mark = 0
        return OutMark(sent.mark)

    def wake_at(self) -> float | None:
        """When :meth:`poll` is worth calling again; None while nothing waits. Less than a chunk
        waits for more, as long as three quarters of the lead are left."""
        if not self._queue:
            return None
        missing = max(self._chunk - self._queued, 0) / self._bytes_per_second
        return self._next_at - self._lead + min(missing, self._lead / 4)

    def _take(self) -> tuple[str, bytes]:
        piece = self._queue[0]
        room = self._chunk
        if len(piece.audio) > room:
            audio, piece.audio = piece.audio[:room], piece.audio[room:]
        else:
            del self._queue[0]
            audio = piece.audio
            # Small pieces of one item travel together.
            while self._queue and self._queue[0].item == piece.item:
                more = self._queue[0].audio
                if len(audio) + len(more) > room:
                    break
                audio += more
                del self._queue[0]
        self._queued -= len(audio)
        return piece.item, audio

    # --- what was heard ---------------------------------------------------------------------

    def mark_reached(self, name: str) -> bool:
        """The carrier returned a mark. False for one that is not (or no longer) awaited."""
        if not any(sent.mark == name for sent in self._in_flight):
            return False
        while True:
            sent = self._in_flight.pop(0)
            self._credit(sent.item, len(sent.audio))
            if sent.mark == name:
                return True

    def _settle_by_clock(self, now: float) -> None:
        while self._in_flight and self._in_flight[0].ends_at <= now:
            sent = self._in_flight.pop(0)
            self._credit(sent.item, len(sent.audio))

    def _credit(self, item: str, size: int) -> None:
        self._heard[item] = self._heard.get(item, 0) + size

    def heard(self, item: str, now: float) -> Heard:
        """What the caller heard of ``item`` until ``now``."""
        size = float(self._heard.get(item, 0))
        left = False
        for sent in self._in_flight:
            if sent.item != item:
                continue
            left = True
            played = min(max(now - sent.starts_at, 0.0), sent.ends_at - sent.starts_at)
            size += played * self._bytes_per_second
        if any(piece.item == item for piece in self._queue) or item in self._unfinished:
            left = True
        return Heard(self.format.duration_ms(int(size)), not left)

    def pending(self, item: str) -> bool:
        """Whether audio of ``item`` still waits, is on its way, or may still come."""
        return (
            item in self._unfinished
            or any(sent.item == item for sent in self._in_flight)
            or any(piece.item == item for piece in self._queue)
        )

    def drain_ms(self, now: float) -> float:
        """Milliseconds until everything queued and sent will have been played."""
        rest = max(self._next_at - now, 0.0) * 1000 if self._in_flight else 0.0
        return rest + self.format.duration_ms(self._queued)

    # --- interruptions ----------------------------------------------------------------------

    def clear(self, now: float) -> dict[str, Heard]:
        """Throw away what waits and what is on its way; what was heard of each item.

        The caller also sends the carrier's clear message. Marks that come back later are
        unknown to :meth:`mark_reached`.
        """
        items = {sent.item for sent in self._in_flight} | {piece.item for piece in self._queue}
        result = {item: self.heard(item, now) for item in items | self._unfinished}
        for sent in self._in_flight:
            played = min(max(now - sent.starts_at, 0.0), sent.ends_at - sent.starts_at)
            self._credit(sent.item, int(played * self._bytes_per_second))
        self._drop()
        return result

    def rewind(self, played_until: float | None = None) -> None:
        """What was sent and not confirmed waits again, in front: the socket is gone, or the
        carrier was told to throw it away. In the second case ``played_until`` is now: what was
        played by then counts as heard and does not come again.
        """
        again = []
        for sent in self._in_flight:
            played = 0
            if played_until is not None:
                lasted = min(max(played_until - sent.starts_at, 0.0), sent.ends_at - sent.starts_at)
                played = self.format.size(lasted * 1000 + _EXACT_MS)
                self._credit(sent.item, played)
            if played < len(sent.audio):
                again.append(_Piece(sent.item, sent.audio[played:]))
        self._queue[:0] = again
        self._queued += sum(len(piece.audio) for piece in again)
        self._in_flight.clear()
        self._last_item = None
        self._next_at = 0.0
        self._since_mark = 0

    def forget(self, item: str) -> None:
        """Drop the accounting of an item that is over."""
        self._heard.pop(item, None)
        self._unfinished.discard(item)

    def _drop(self) -> None:
        self._queue.clear()
        self._queued = 0
        self._in_flight.clear()
        self._unfinished.clear()
        self._next_at = 0.0
        self._since_mark = 0
