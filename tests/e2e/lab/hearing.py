"""Decode what a phone heard from its audio (PCM16, 8 kHz)."""

from __future__ import annotations

from voicecall_testing.fsk import FskDecoder

__all__ = ["frames", "sentences"]

_FRAME = 320
_SHORT_GAP_FRAMES = 6
_PREAMBLE_FRAMES = 3
"""Enough for a decoder to see that a packet begins."""


def frames(pcm: bytes) -> list[bytes]:
    """20 ms each; the last may be shorter."""
    return [pcm[start : start + _FRAME] for start in range(0, len(pcm), _FRAME)]


def sentences(pcm: bytes) -> list[str | None]:
    """The sentences in it; None for each that was cut off. A short gap inside a sentence, as a busy
    machine makes them, does not count; one before the beginning of another sentence does."""
    decoder = FskDecoder()
    found: list[str | None] = []
    gap: list[bytes] = []
    heard = frames(pcm)
    for number, frame in enumerate(heard):
        if not any(frame):
            gap.append(frame)
            continue
        if gap and (
            len(gap) > _SHORT_GAP_FRAMES or _begins(heard[number : number + _PREAMBLE_FRAMES])
        ):
            found += decoder.feed(b"".join(gap))
        found += decoder.feed(frame)
        gap = []
    return found + decoder.finish()


def _begins(heard: list[bytes]) -> bool:
    """Whether a sentence begins here. Text cannot look like a preamble, which is not UTF-8."""
    decoder = FskDecoder()
    decoder.feed(b"".join(heard))
    return decoder.receiving
