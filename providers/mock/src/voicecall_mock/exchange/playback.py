"""The playback buffer of a media stream: what the far side sent, played in real time. Pure.

An *underrun* is a gap in the middle of an utterance: the buffer ran dry for at least one frame
between two media messages that arrived less than ``gap_ms`` apart, with no clear in between.
(Messages further apart belong to different utterances.)
"""

from __future__ import annotations

from collections import deque

__all__ = ["FRAME", "FRAME_MS", "SILENCE", "Playback"]

FRAME_MS = 20
FRAME = 160
"""Bytes of one frame of mu-law at 8 kHz."""
SILENCE = b"\xff" * FRAME


class Playback:
    """Holds ``limit`` bytes of mu-law; what does not fit is dropped and counted."""

    def __init__(self, *, gap_ms: float = 400, limit: int = 2_400_000) -> None:
        self._gap_s = gap_ms / 1000
        self._limit = limit
        self._buffer = bytearray()
        self._marks: deque[tuple[int, str]] = deque()
        self._received = 0
        self._played = 0
        self._last_arrival: float | None = None
        self._dry = False
        self.underruns = 0
        self.dropped = 0

    @property
    def pending_ms(self) -> float:
        """Milliseconds of audio still to be played."""
        return len(self._buffer) / 8

    def feed(self, payload: bytes, now: float) -> None:
        """Audio that arrived at ``now`` (monotonic seconds)."""
        if len(self._buffer) + len(payload) > self._limit:
            self.dropped += len(payload)
            return
        last = self._last_arrival
        if self._dry and last is not None and now - last < self._gap_s:
            self.underruns += 1
        self._dry = False
        self._last_arrival = now
        self._buffer += payload
        self._received += len(payload)

    def mark(self, name: str) -> None:
        """Return ``name`` from :meth:`reached` when all audio up to now was played."""
        self._marks.append((self._received, name))

    def clear(self) -> list[str]:
        """Discard the audio; returns the names of all marks, which are reached at once."""
        names = [name for _, name in self._marks]
        self._marks.clear()
        self._buffer.clear()
        self._played = self._received
        self._last_arrival = None
        return names

    def reached(self) -> list[str]:
        """Names of the marks whose audio has been played to its end."""
        names = []
        while self._marks and self._marks[0][0] <= self._played:
            names.append(self._marks.popleft()[1])
        return names

    def take(self) -> bytes | None:
        """The next frame to play, padded with silence; None if there is no audio."""
        if not self._buffer:
            self._dry = True
            return None
        frame = bytes(self._buffer[:FRAME])
        del self._buffer[:FRAME]
        self._played += len(frame)
        return frame if len(frame) == FRAME else frame.ljust(FRAME, b"\xff")
