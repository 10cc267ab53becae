"""Turns decisions about single frames into the beginning and end of a voice."""

from __future__ import annotations

from collections import deque

__all__ = ["Voicing"]


class Voicing:
    """Counts frames, numbered from 0.

    A voice begins with ``onset`` voiced frames among the last ``window``, so that short silences
    within words do not delay it. It ends after ``hangover`` consecutive unvoiced frames.
    """

    def __init__(self, *, onset: int, window: int, hangover: int) -> None:
        self.active = False
        self.began = 0
        """First frame of the voice."""
        self.ended = 0
        """The frame after its last voiced one."""
        self._onset = onset
        self._window = window
        self._hangover = hangover
        self._voiced: deque[int] = deque()
        self._next = 0

    def frame(self, voiced: bool) -> bool:
        """Count the next frame; True if the voice begins or ends with it."""
        number = self._next
        self._next += 1
        if voiced:
            self.ended = self._next
        if self.active:
            self.active = self._next - self.ended < self._hangover
            return not self.active
        if voiced:
            self._voiced.append(number)
        while self._voiced and self._voiced[0] <= number - self._window:
            self._voiced.popleft()
        if len(self._voiced) < self._onset:
            return False
        self.active = True
        self.began = self._voiced[0]
        self._voiced.clear()
        return True
