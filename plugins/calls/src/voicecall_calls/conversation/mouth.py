"""How a dialogue speaks, whichever way the call's audio goes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import anyio

__all__ = ["Asks", "Mouth", "Speech", "SpeechTimes", "Spoken", "heard_part", "let_finish"]

Asks: TypeAlias = Callable[[], None] | None
_LOOK_S = 0.05
_LOOKS = 80
"""How often, at these intervals, it is checked whether the caller still goes on."""


@dataclass(slots=True)
class SpeechTimes:
    """When an utterance reached each stage, milliseconds since the epoch."""

    first_byte: int | None = None
    first_sent: int | None = None
    done: int | None = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """How an utterance ended. ``heard``: the text that reached the caller. ``ok`` is false if it
    could not be played; ``error`` then says why."""

    heard: str
    complete: bool = True
    ok: bool = True
    error: str | None = None


class Speech(ABC):
    """One utterance, to which text is sent sentence by sentence. ``listens``, set before
    :meth:`done`: whether a carrier with its own recogniser listens during and after it."""

    times: SpeechTimes
    listens: bool = True

    @abstractmethod
    async def send(self, sentence: str) -> None:
        """Speak the next sentence."""

    @abstractmethod
    async def done(self) -> Spoken:
        """No more sentences: wait until all were heard and the record knows it."""

    @abstractmethod
    async def stop(self) -> Spoken:
        """Stop now (an interruption); return once the record knows what was heard."""


class Mouth(ABC):
    """Speaks for a dialogue, which sees to it that there is at most one utterance at a time.
    ``at_once``: sentences are heard while more of them are awaited."""

    at_once = True

    @abstractmethod
    def begin(self, *, first_message: bool = False, asks: Asks = None) -> Speech:
        """A new utterance. ``first_message``: it is the call's greeting or notification. ``asks``
        is given for a question, and called when answers to it begin to count."""


def heard_part(text: str, heard: float, total: float) -> str:
    """The words of ``text`` that fall into the heard part of its audio, by their number."""
    if total <= 0:
        return ""
    words = text.split()
    return " ".join(words[: int(len(words) * min(heard / total, 1.0) + 0.5)])


async def let_finish(goes_on: Callable[[], bool]) -> None:
    """Wait, a few seconds at most, while the caller is in the middle of something."""
    for _ in range(_LOOKS):
        if not goes_on():
            return
        await anyio.sleep(_LOOK_S)
