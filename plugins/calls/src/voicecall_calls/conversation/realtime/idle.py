"""Ends calls on which neither the caller nor the voice model says anything any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from voicecall.seam import Seam
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.question import OpenQuestion
from voicecall_calls.conversation.realtime.consult import Consults
from voicecall_calls.conversation.realtime.tools import RealtimeTools
from voicecall_calls.conversation.realtime.voice import ModelVoice

__all__ = ["IdleWatch"]

_LOOKS_EVERY_S = 1.0
_LONGEST_MS = 60_000
"""Speech of the caller that lasts longer does not count: the model did not report its end, or hears
a television."""


class IdleWatch:
    """Calls ``over`` once nothing was said, done or waited for during ``patience_ms`` (None:
    never). Checks once a second."""

    def __init__(
        self,
        line: AudioLine,
        voice: ModelVoice,
        tools: RealtimeTools,
        consults: Consults,
        question: OpenQuestion,
        seam: Seam,
        patience_ms: int | None,
        over: Callable[[], None],
    ) -> None:
        self._line = line
        self._voice = voice
        self._tools = tools
        self._consults = consults
        self._question = question
        self._seam = seam
        self._patience = None if patience_ms is None else patience_ms / 1000
        self._over = over
        self._since = 0.0
        self._heard: tuple[int | None, ...] = ()
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the context is entered."""
        if self._patience is not None:
            self._since = self._seam.monotonic()
            self._look(self._patience)
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _look(self, patience: float) -> None:
        now = self._seam.monotonic()
        caller = self._voice.caller
        heard = (caller.started, caller.ended, caller.final)
        if heard != self._heard or self._busy():
            self._since, self._heard = now, heard
        left = self._since + patience - now
        if left <= 0:
            self._over()
            return
        # A timer, because a task per call would exist only for this.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(left, _LOOKS_EVERY_S), self._look, patience)

    def _busy(self) -> bool:
        """Whether somebody speaks, a tool runs, or something is awaited. A missing media socket
        counts, since it has its own deadline."""
        voice, caller = self._voice, self._voice.caller
        begun_ms = self._seam.now_ms() - (caller.started or 0)
        speaks = caller.speaks and not caller.wordless and begun_ms < _LONGEST_MS
        answers = voice.playing or voice.answering or voice.asked
        works = self._tools.busy or self._consults.current is not None or self._question.waits
        return speaks or answers or works or self._line.socket is None
