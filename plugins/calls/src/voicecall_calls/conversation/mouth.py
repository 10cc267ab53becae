"""Speaking: what a dialogue asks for, whichever way the call's audio goes."""

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
"""So often, with such pauses, it is asked whether a caller still goes on."""


@dataclass(slots=True)
class SpeechTimes:
    """When an utterance got where, milliseconds since the epoch."""

    first_byte: int | None = None
    first_sent: int | None = None
    done: int | None = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """How an utterance ended. ``heard``: the text that reached the caller. ``ok`` is false where
    it could not be played; ``error`` then says why."""

    heard: str
    complete: bool = True
    ok: bool = True
    error: str | None = None


class Speech(ABC):
    """One utterance: text goes in sentence by sentence. ``listens``, set before :meth:`done`:
    whether a carrier with its own recogniser listens with it and behind it."""

    times: SpeechTimes
    listens: bool = True

    @abstractmethod
    async def send(self, sentence: str) -> None:
        """The next sentence."""

    @abstractmethod
    async def done(self) -> Spoken:
        """No more sentences; wait until all of it was heard. The record knows by then."""

    @abstractmethod
    async def stop(self) -> Spoken:
        """Stop now (an interruption). The record knows by then."""


class Mouth(ABC):
    """At most one utterance at a time; the dialogue takes care of that. ``at_once``: its sentences
    are heard while more of them are awaited."""

    at_once = True

    @abstractmethod
    def begin(self, *, first_message: bool = False, asks: Asks = None) -> Speech:
        """A new utterance. ``first_message``: it is the call's greeting or notification. ``asks``:
        it is a question, and is called when only what is said from then on answers it."""


def heard_part(text: str, heard: float, total: float) -> str:
    """The words of ``text`` that fit into the part of its audio that was heard."""
    if total <= 0:
        return ""
    words = text.split()
    return " ".join(words[: int(len(words) * min(heard / total, 1.0) + 0.5)])


async def let_finish(goes_on: Callable[[], bool]) -> None:
    """Wait, for a few seconds at most, while the caller is in the middle of something."""
    for _ in range(_LOOKS):
        if not goes_on():
            return
        await anyio.sleep(_LOOK_S)
