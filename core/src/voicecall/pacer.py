"""Sends audio to a carrier with a bounded lead, and knows what the caller has heard.

The pacer is pure: its user passes the time in and sends what comes out. A piece of audio belongs
to an item (an utterance). A mark is sent after every stretch of audio, including the last one of a
finished item; when the carrier returns it, everything before it has been played. Between marks,
the audio heard is estimated by the clock, never beyond the next mark.
"""

from __future__ import annotations

import msgspec

from .audio.formats import AudioFormat
from .pacing import Piece, Stretch, pace_of

__all__ = ["Heard", "OutAudio", "OutMark", "Pacer", "PacerOverflow"]

_EXACT_MS = 0.001
"""Added to a duration before it becomes a size, so that a rounding error does not cost a sample."""


class PacerOverflow(Exception):
    """More audio was written than the pacer may hold."""


class OutAudio(msgspec.Struct, frozen=True):
    """Audio of ``item`` to send now."""

    payload: bytes
    item: str


class OutMark(msgspec.Struct, frozen=True):
    """A mark to send now."""

    name: str


class Heard(msgspec.Struct, frozen=True):
    """The milliseconds of an item that the caller heard, and whether that is all of it."""

    milliseconds: float
    complete: bool


class Pacer:
    """One per call.

    ``lead_ms``: how far sent audio may be ahead of the clock. ``chunk_ms``: the largest message.
    ``mark_ms``: the longest time between marks, or ``assured_ms`` while ``assured`` is true, that
    is, while something else shows that audio arrives. ``limit_ms``: how much audio may wait. If
    ``marks`` is false (a carrier without marks), the clock alone decides what was heard.
    """

    # With hundreds of calls, the cost of a frame is memory access: the objects of its call have
    # left the processor's caches. So calls share what they have in common, a frame uses few
    # objects, and audio on its way is not kept in the pieces in which it came.
    __slots__ = (
        "_due",
        "_heard",
        "_in_flight",
        "_last_item",
        "_mark_count",
        "_marks",
        "_next_at",
        "_pace",
        "_queue",
        "_queued",
        "_sending",
        "_unfinished",
        "_unmarked",
        "assured",
        "format",
        "underruns",
    )

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        lead_ms: int = 200,
        chunk_ms: int = 60,
        mark_ms: int = 240,
        assured_ms: int = 960,
        limit_ms: int = 120_000,
        marks: bool = True,
    ) -> None:
        self.format = audio_format
        self._pace = pace_of(audio_format, lead_ms, chunk_ms, mark_ms, assured_ms, limit_ms)
        self.assured = False
        self._marks = marks
        # Lists: removing the first of some hundred elements costs no more than with a deque, which
        # is large even when empty.
        self._queue: list[Piece] = []
        self._queued = 0
        self._in_flight: list[Stretch] = []
        self._sending: bytearray | None = None
        """The audio of the last stretch in flight, while more may still be added to it."""
        self._due = 0
        """A mark is due once this stretch has this many bytes."""
        self._heard: dict[str, int] = {}
        self._unfinished: set[str] = set()
        self._last_item: str | None = None
        self._next_at = 0.0
        self._mark_count = 0
        self._unmarked = 0
        """Bytes of earlier stretches after which no mark was sent."""
        self.underruns = 0

    # --- input ------------------------------------------------------------------------------

    def write(self, item: str, audio: bytes) -> None:
        """Queue audio of ``item``. Raises :exc:`PacerOverflow` beyond the limit."""
        if not audio:
            return
        if self._queued + len(audio) > self._pace.limit:
            raise PacerOverflow(f"more than {self._pace.limit} bytes of audio are waiting")
        self._unfinished.add(item)
        self._queue.append(Piece(item, audio))
        self._queued += len(audio)

    def finish(self, item: str) -> None:
        """No more audio of ``item`` will come."""
        self._unfinished.discard(item)

    # --- output -----------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no audio waits and none is on its way."""
        return not self._queue and not self._in_flight

    @property
    def waiting(self) -> bool:
        """Whether audio waits for its time."""
        return bool(self._queue)

    def pass_on(self, item: str, audio: bytes, now: float) -> str | None:
        """A fast path for real-time audio that continues ``item``. If it can be sent at once and
        unchanged, it counts as sent, and the result is the name of the mark to send after it
        (empty: none). If the result is None, nothing was done: call :meth:`write` instead."""
        size = len(audio)
        pace, next_at = self._pace, self._next_at
        if (
            self._last_item != item
            or self._queued
            or not now <= next_at < now + pace.lead
            or not 0 < size <= pace.chunk
        ):
            return None
        sending = self._sending
        if sending is None:
            sending = self._begin(item).audio
        sending += audio
        self._next_at = next_at + size / pace.bytes_per_second
        if len(sending) < self._due and size < pace.chunk:
            return ""
        return self._close(self._in_flight[-1])

    def poll(self, now: float) -> list[OutAudio | OutMark]:
        """What to send at ``now`` (seconds on any steady clock), in order."""
        out: list[OutAudio | OutMark] = []
        if self._queue:
            self._catch_up(now)
        while self._queue and self._next_at - now < self._pace.lead:
            item, audio = self._take()
            self._send(item, audio, out)
        if not self._marks:
            self._settle_by_clock(now)
        elif not self._queue and self._in_flight:
            # Only now is it known that this was the last audio of the item.
            last = self._in_flight[-1]
            if last.mark is None and last.item not in self._unfinished:
                out.append(OutMark(self._close(last)))
        return out

    def _catch_up(self, now: float) -> None:
        if self._next_at < now:
            if self._last_item in self._unfinished:
                self.underruns += 1
            self._next_at = now
            self._abandon()

    def _abandon(self) -> None:
        """Close the open stretch without a mark."""
        if self._sending is not None:
            self._unmarked += len(self._sending)
            self._sending = None

    def _send(self, item: str, audio: bytes, out: list[OutAudio | OutMark]) -> None:
        if self._sending is not None and self._in_flight[-1].item == item:
            stretch = self._in_flight[-1]
        else:
            self._abandon()
            stretch = self._begin(item)
        stretch.audio += audio
        self._next_at += len(audio) / self._pace.bytes_per_second
        self._last_item = item
        out.append(OutAudio(audio, item))
        if self._mark_due(stretch, len(audio)) and (mark := self._close(stretch)):
            out.append(OutMark(mark))

    def _begin(self, item: str) -> Stretch:
        # Usually the shared number itself, not an object of this call.
        self._due = self._pace.mark_assured if self.assured else self._pace.mark_every
        if self._unmarked:
            self._due -= self._unmarked
        stretch = Stretch(item, bytearray(), self._next_at)
        self._sending = stretch.audio
        self._in_flight.append(stretch)
        return stretch

    def _mark_due(self, stretch: Stretch, size: int) -> bool:
        if len(stretch.audio) >= self._due:
            return True
        if self._queue:
            return self._queue[0].item != stretch.item
        # Live audio is sent in pieces smaller than a chunk; a mark after each would double the
        # number of messages.
        return size >= self._pace.chunk

    def _close(self, stretch: Stretch) -> str:
        """End a stretch; returns the name of the mark after it, empty if there are no marks."""
        self._sending = None
        self._unmarked = 0
        if not self._marks:
            return ""
        stretch.mark = mark = f"vc-{self._mark_count}"
        self._mark_count += 1
        return mark

    def wake_at(self) -> float | None:
        """When to call :meth:`poll` again; None if nothing waits. Less than a chunk waits for more
        audio while three quarters of the lead are left."""
        if not self._queue:
            return None
        pace = self._pace
        missing = max(pace.chunk - self._queued, 0) / pace.bytes_per_second
        return self._next_at - pace.lead + min(missing, pace.lead / 4)

    def _take(self) -> tuple[str, bytes]:
        piece = self._queue[0]
        room = self._pace.chunk
        if len(piece.audio) > room:
            audio, piece.audio = piece.audio[:room], piece.audio[room:]
        else:
            del self._queue[0]
            audio = piece.audio
            # Small pieces of one item are sent together.
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
        """The carrier returned a mark. Returns False if it is not, or no longer, expected."""
        marks = [stretch.mark for stretch in self._in_flight]
        if name not in marks:
            return False
        count = marks.index(name) + 1
        for stretch in self._in_flight[:count]:
            self._credit(stretch.item, len(stretch.audio))
        del self._in_flight[:count]
        return True

    def _settle_by_clock(self, now: float) -> None:
        while self._in_flight and self._ends_at(self._in_flight[0]) <= now:
            stretch = self._in_flight.pop(0)
            self._credit(stretch.item, len(stretch.audio))
            if stretch.audio is self._sending:
                self._abandon()

    def _ends_at(self, stretch: Stretch) -> float:
        return stretch.starts_at + len(stretch.audio) / self._pace.bytes_per_second

    def _played(self, stretch: Stretch, now: float) -> float:
        """Bytes of a stretch that the caller has heard by ``now``, by the clock."""
        played = (now - stretch.starts_at) * self._pace.bytes_per_second
        return min(max(played, 0), len(stretch.audio))

    def _credit(self, item: str, size: int) -> None:
        self._heard[item] = self._heard.get(item, 0) + size

    def heard(self, item: str, now: float) -> Heard:
        """What the caller has heard of ``item`` by ``now``."""
        played = (self._played(one, now) for one in self._in_flight if one.item == item)
        size = sum(played, self._heard.get(item, 0))
        return Heard(self.format.duration_ms(int(size)), not self.pending(item))

    def size(self, item: str) -> int:
        """Bytes of ``item`` that were heard, are on their way or wait."""
        sent = sum(len(stretch.audio) for stretch in self._in_flight if stretch.item == item)
        waiting = sum(len(piece.audio) for piece in self._queue if piece.item == item)
        return self._heard.get(item, 0) + sent + waiting

    def pending(self, item: str) -> bool:
        """Whether audio of ``item`` waits, is on its way or may still be written."""
        return (
            item in self._unfinished
            or any(stretch.item == item for stretch in self._in_flight)
            or any(piece.item == item for piece in self._queue)
        )

    def drain_ms(self, now: float) -> float:
        """Milliseconds until everything queued and sent will have been played."""
        rest = max(self._next_at - now, 0.0) * 1000 if self._in_flight else 0.0
        return rest + self.format.duration_ms(self._queued)

    # --- interruptions ----------------------------------------------------------------------

    def clear(self, now: float) -> dict[str, Heard]:
        """Discard the audio that waits or is on its way. Returns what was heard of each item.

        The user of the pacer must also send the carrier's clear message. Marks that come back later
        are no longer expected by :meth:`mark_reached`.
        """
        items = {stretch.item for stretch in self._in_flight}
        items.update(piece.item for piece in self._queue)
        result = {item: self.heard(item, now) for item in items | self._unfinished}
        for stretch in self._in_flight:
            self._credit(stretch.item, int(self._played(stretch, now)))
        self._queue.clear()
        self._queued = 0
        self._unfinished.clear()
        self._nothing_sent()
        return result

    def rewind(self, played_until: float | None = None) -> None:
        """Put audio that was sent but not confirmed back to the front of the queue, because the
        socket is gone or the carrier discarded it. If the carrier is known to have played until
        ``played_until``, the audio played by then counts as heard and is not sent again.
        """
        again = []
        for stretch in self._in_flight:
            played = 0
            if played_until is not None:
                lasted_s = self._played(stretch, played_until) / self._pace.bytes_per_second
                played = self.format.size(lasted_s * 1000 + _EXACT_MS)
                self._credit(stretch.item, played)
            if played < len(stretch.audio):
                again.append(Piece(stretch.item, bytes(stretch.audio[played:])))
        self._queue[:0] = again
        self._queued += sum(len(piece.audio) for piece in again)
        self._last_item = None
        self._nothing_sent()

    def _nothing_sent(self) -> None:
        """Record that no audio is on its way."""
        self._in_flight.clear()
        self._sending = None
        self._next_at = 0.0
        self._unmarked = 0

    def forget(self, item: str) -> None:
        """Forget what was heard of an item that is over."""
        self._heard.pop(item, None)
        self._unfinished.discard(item)
