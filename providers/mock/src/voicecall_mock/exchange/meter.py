"""Who spoke when on a media stream, frame by frame. Pure.

A frame is *loud* when at least 8 of its 160 samples exceed a level of 300 (of 32,767).

``barge_in_stop_ms``: for each time the phone began to speak while the far side spoke, from the
phone's first loud frame to the end of the last loud frame of the far side that was played.
``response_ms``: for each answer, from the end of the phone's last loud frame to the first loud
frame of the far side (the silence that the phone's user perceives).
"""

from __future__ import annotations

from functools import cache

from .playback import FRAME_MS

__all__ = ["Meter", "is_loud"]

_LEVEL = 300
_SAMPLES = 8
_HANGOVER_FRAMES = 10
"""The far side counts as speaking this long after a loud frame, because of gaps between words."""


@cache
def _loud_table() -> bytes:
    """Whether each mu-law code is loud. Made at first use, because numpy is slow to import."""
    import numpy as np

    from voicecall.audio import mulaw_to_pcm16

    level = np.abs(np.frombuffer(mulaw_to_pcm16(bytes(range(256))), np.int16).astype(np.int32))
    return bytes((level > _LEVEL).astype(np.uint8))


def is_loud(frame: bytes) -> bool:
    """Whether a mu-law frame is loud."""
    return frame.translate(_loud_table()).count(1) >= _SAMPLES


class Meter:
    """One per call. ``settle_ms``: quiet after which an interrupted far side has stopped."""

    def __init__(self, *, settle_ms: int = 500) -> None:
        self._settle = max(1, settle_ms // FRAME_MS)
        self._now = 0
        self._far_last: int | None = None
        self._phone_last: int | None = None
        self._phone_begins = False
        self._reply_due = False
        self._interruption: tuple[int, int] | None = None
        self._stops: list[float] = []
        self.response_ms: list[float] = []

    @property
    def far_speaks(self) -> bool:
        return self._far_last is not None and self._now - self._far_last <= _HANGOVER_FRAMES

    @property
    def far_quiet_ms(self) -> float | None:
        """Time since the far side's last loud frame; None if it has never spoken."""
        return None if self._far_last is None else (self._now - self._far_last) * FRAME_MS

    @property
    def barge_in_stop_ms(self) -> list[float]:
        """The last value grows as long as the far side goes on speaking."""
        if self._interruption is None:
            return list(self._stops)
        return [*self._stops, self._span(self._interruption)]

    @staticmethod
    def _span(interruption: tuple[int, int]) -> float:
        start, last = interruption
        return float(max(0, last - start + 1) * FRAME_MS)

    def phone_begins(self) -> None:
        """An utterance of the phone begins with its next loud frame."""
        self._phone_begins = True

    def frame(self, said: bytes | None, heard: bytes | None) -> bool:
        """20 ms pass; None is silence. Returns True if the far side began to speak."""
        self._now += 1
        began = False
        if heard is not None and is_loud(heard):
            began = not self.far_speaks
            if began and self._reply_due and said is None and self._phone_last is not None:
                self.response_ms.append(float((self._now - self._phone_last - 1) * FRAME_MS))
                self._reply_due = False
            self._far_last = self._now
        if said is not None and is_loud(said):
            self._phone_speaks()
        self._follow_interruption()
        return began

    def _phone_speaks(self) -> None:
        if self._phone_begins:
            self._phone_begins = False
            if self.far_speaks and self._interruption is None:
                self._interruption = (self._now, self._now - 1)
        self._phone_last = self._now
        self._reply_due = True

    def _follow_interruption(self) -> None:
        if self._interruption is None or self._far_last is None:
            return
        start, last = self._interruption
        last = max(last, self._far_last)
        self._interruption = (start, last)
        if self._now - last >= self._settle:
            self._stops.append(self._span(self._interruption))
            self._interruption = None
