"""Pays audio out to a carrier with a bounded lead, and knows what the caller has heard.

The pacer is pure: the caller passes the time in and sends what comes out. A piece of audio
belongs to an item (an utterance). After every stretch of audio a mark is sent, also after the
last of a finished item; when the carrier returns it, everything before it has been played.
Between marks, what was heard is estimated from the clock and never goes past the next mark.

Audio is live while its source is not ahead of real time. After a stall all of it is due: it may
run further ahead at the carrier, where waiting for its turn costs nobody anything. A carrier
without marks gets no more than the lead.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from .audio.formats import AudioFormat

__all__ = ["Heard", "OutAudio", "OutMark", "Pacer", "PacerOverflow"]

_KEPT_S = 1.0
"""A source that pauses for less may make up for it."""
_FASTER = 0.25
"""A source counts as ahead of real time when it is faster by more than this."""
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
    """Audio of ``item`` on its way to the caller, without a gap on the output clock. A live
    stream's frames between two marks share one."""

    item: str
    starts_at: float
    ends_at: float
    size: int = 0
    parts: list[bytes] = field(default_factory=list)
    mark: str | None = None


class Pacer:
    """One a call.

    ``lead_ms``: how far the carrier's buffer may run ahead of the clock. ``chunk_ms``: the
    largest message. ``mark_ms``: a mark at least this often. ``limit_ms``: audio that may wait.
    ``live_lead_ms`` and ``live_mark_ms``: the same of live audio (``None``: as often as other
    audio). With ``marks`` false (a carrier without them) the clock alone decides what was heard.
    """

    def __init__(
        self,
        audio_format: AudioFormat,
        *,
        lead_ms: int = 200,
        chunk_ms: int = 60,
        mark_ms: int = 240,
        limit_ms: int = 120_000,
        live_lead_ms: int = 1000,
        live_mark_ms: int | None = None,
        marks: bool = True,
    ) -> None:
        self.format = audio_format
        self._lead = lead_ms / 1000
        self._chunk = audio_format.size(chunk_ms)
        self._mark_every = audio_format.size(mark_ms)
        self._live_lead = max(live_lead_ms / 1000, self._lead) if marks else self._lead
        self._live_mark_every = audio_format.size(live_mark_ms or mark_ms)
        self._limit = audio_format.size(limit_ms)
        self._bytes_per_second = audio_format.bytes_per_second
        self._marks = marks
        self._queue: deque[_Piece] = deque()
        self._queued = 0
        self._in_flight: deque[_Sent] = deque()
        self._open: _Sent | None = None
        """The last one in flight, while more can join it."""
        self._heard: dict[str, int] = {}
        self._unfinished: set[str] = set()
        self._last_item: str | None = None
        self._next_at = 0.0
        self._source: str | None = None
        self._source_ends = -math.inf
        """When the newest audio would end, had it been played from when it began to come."""
        self._source_at = 0.0
        self._source_changed = False
        self._source_new = 0
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
        self._note_source(item, len(audio))

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
        """:meth:`write` and :meth:`poll` in one."""
        if not self.passes(audio, now):
            self.write(item, audio)
            return self.poll(now)
        mark = self.passed(item, audio, now)
        out: list[OutAudio | OutMark] = [OutAudio(audio, item)]
        return out if mark is None else [*out, mark]

    def passes(self, audio: bytes, now: float) -> bool:
        """Whether ``audio`` may be sent as it came: it is small and the lead is not used up.
        Then it must be, and :meth:`passed` told. Audio in real time always passes."""
        return (
            self._next_at - now < self._lead and not self._queue and 0 < len(audio) <= self._chunk
        )

    def passed(self, item: str, audio: bytes, now: float) -> OutMark | None:
        """``audio``, which :meth:`passes`, is sent; the mark to send behind it."""
        if item not in self._unfinished:
            self._unfinished.add(item)
        self._note_source(item, len(audio))
        self._take_stock(now)
        self._catch_up(now)
        mark = self._send(item, audio)
        if not self._marks:
            self._settle_by_clock(now)
        return mark

    def poll(self, now: float) -> list[OutAudio | OutMark]:
        """What to send at ``now`` (seconds on any steady clock), in order."""
        out: list[OutAudio | OutMark] = []
        if self._queue:
            self._take_stock(now)
            self._catch_up(now)
            lead = self._live_lead if self._source_ends - now < self._lead else self._lead
            while self._queue and self._next_at - now < lead:
                item, audio = self._take()
                mark = self._send(item, audio)
                out.append(OutAudio(audio, item))
                if mark is not None:
                    out.append(mark)
        if not self._marks:
            self._settle_by_clock(now)
        elif not self._queue and self._in_flight:
            # Only now is it known that no more of the item comes.
            last = self._in_flight[-1]
            if last.mark is None and last.item not in self._unfinished:
                out.append(self._mark(last))
        return out

    def _note_source(self, item: str, size: int) -> None:
        if item != self._source:
            self._source = item
            self._count_source()
            self._source_changed = True
        self._source_new += size

    def _count_source(self) -> None:
        self._source_ends += self._source_new / self._bytes_per_second
        self._source_new = 0

    def _take_stock(self, now: float) -> None:
        """Bring ``_source_ends`` up to date."""
        if self._source_changed:
            self._source_changed = False
            if self._source_ends < now - _KEPT_S:
                self._source_ends = self._source_at = now
        # A burst after a stall is not to count for ever: what comes in real time wears it off.
        lasts = self._source_new / self._bytes_per_second
        self._source_ends -= _FASTER * max(min(lasts, now - self._source_at), 0.0)
        self._source_at = now
        self._count_source()

    def _catch_up(self, now: float) -> None:
        if self._next_at < now:
            if self._last_item in self._unfinished:
                self.underruns += 1
            self._next_at = now
            self._open = None

    def _send(self, item: str, audio: bytes) -> OutMark | None:
        size = len(audio)
        starts_at = self._next_at
        self._next_at = ends_at = starts_at + size / self._bytes_per_second
        sent = self._open
        if sent is None or sent.item != item or sent.size >= self._mark_every:
            self._open = sent = _Sent(item, starts_at, ends_at)
            self._in_flight.append(sent)
        sent.parts.append(audio)
        sent.size += size
        sent.ends_at = ends_at
        self._last_item = item
        self._since_mark += size
        return self._mark(sent) if self._marks and self._mark_due(item, size) else None

    def _mark_due(self, item: str, size: int) -> bool:
        if self._queue:
            return self._since_mark >= self._mark_every or self._queue[0].item != item
        # A live stream leaves in pieces smaller than a chunk; a mark after each would double the
        # messages. What is between two marks is heard by the clock, and it comes by the clock.
        return size >= self._chunk or self._since_mark >= self._live_mark_every

    def _mark(self, sent: _Sent) -> OutMark:
        sent.mark = f"vc-{self._mark_count}"
        self._mark_count += 1
        self._since_mark = 0
        self._open = None
        return OutMark(sent.mark)

    def wake_at(self) -> float | None:
        """When :meth:`poll` is worth calling again; None while nothing waits. Less than a chunk
        waits for more, as long as three quarters of the lead are left."""
        if not self._queue:
            return None
        missing = max(self._chunk - self._queued, 0) / self._bytes_per_second
        live_at = self._source_ends + self._source_new / self._bytes_per_second - self._lead
        sends_at = min(self._next_at - self._lead, max(self._next_at - self._live_lead, live_at))
        return sends_at + min(missing, self._lead / 4)

    def _take(self) -> tuple[str, bytes]:
        piece = self._queue[0]
        room = self._chunk
        if len(piece.audio) > room:
            audio, piece.audio = piece.audio[:room], piece.audio[room:]
        else:
            self._queue.popleft()
            audio = piece.audio
            # Small pieces of one item travel together.
            while self._queue and self._queue[0].item == piece.item:
                more = self._queue[0].audio
                if len(audio) + len(more) > room:
                    break
                audio += more
                self._queue.popleft()
        self._queued -= len(audio)
        return piece.item, audio

    # --- what was heard ---------------------------------------------------------------------

    def mark_reached(self, name: str) -> bool:
        """The carrier returned a mark. False for one that is not (or no longer) awaited."""
        if not any(sent.mark == name for sent in self._in_flight):
            return False
        while True:
            sent = self._in_flight.popleft()
            self._credit(sent.item, sent.size)
            if sent.mark == name:
                return True

    def _settle_by_clock(self, now: float) -> None:
        while self._in_flight and self._in_flight[0].ends_at <= now:
            sent = self._in_flight.popleft()
            self._credit(sent.item, sent.size)
        if not self._in_flight:
            self._open = None

    def _credit(self, item: str, size: int) -> None:
        self._heard[item] = self._heard.get(item, 0) + size

    def _played(self, sent: _Sent, now: float) -> int:
        """Bytes of ``sent`` that were played by ``now``, in whole samples."""
        if now >= sent.ends_at:
            return sent.size
        lasted = max(now - sent.starts_at, 0.0) * 1000
        return min(self.format.size(lasted + _EXACT_MS), sent.size)

    def heard(self, item: str, now: float) -> Heard:
        """What the caller heard of ``item`` until ``now``."""
        size = self._heard.get(item, 0)
        left = False
        for sent in self._in_flight:
            if sent.item != item:
                continue
            left = True
            size += self._played(sent, now)
        if any(piece.item == item for piece in self._queue) or item in self._unfinished:
            left = True
        return Heard(self.format.duration_ms(size), not left)

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
            self._credit(sent.item, self._played(sent, now))
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
                played = self._played(sent, played_until)
                self._credit(sent.item, played)
            if played < sent.size:
                again.append(_Piece(sent.item, b"".join(sent.parts)[played:]))
        self._queue.extendleft(reversed(again))
        self._queued += sum(len(piece.audio) for piece in again)
        self._in_flight.clear()
        self._open = None
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
        self._open = self._source = None
        self._source_new = 0
        self._source_ends = -math.inf
        self._unfinished.clear()
        self._next_at = 0.0
        self._since_mark = 0
