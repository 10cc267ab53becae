"""Caller audio on its way from the line to the voice model."""

from __future__ import annotations

from collections.abc import Callable

from voicecall.seam import Seam

__all__ = ["ModelEar"]


class ModelEar:
    """``to_model`` takes caller audio, by a plain call; nobody does at first. ``heard_at`` is when
    the last came, by the steady clock, in seconds."""

    # As in the pacer: a frame should look at few objects.
    __slots__ = ("_monotonic", "heard_at", "to_model")

    def __init__(self, seam: Seam) -> None:
        self._monotonic = seam.monotonic
        self.heard_at = seam.monotonic()
        self.to_model: Callable[[bytes], None] = _drop

    def hear(self, audio: bytes) -> None:
        """The next caller audio."""
        monotonic, to_model = self._monotonic, self.to_model
        self.heard_at = monotonic()
        to_model(audio)


def _drop(audio: bytes) -> None:
    """There is no model yet."""
