"""The caller's side of a realtime conversation: transcripts for the record, and whether audio still
arrives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio

from voicecall import events as ev
from voicecall.seam import Seam
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.question import OpenQuestion
from voicecall_calls.conversation.turntimes import CallerTimes
from voicecall_calls.news import News

if TYPE_CHECKING:
    from voicecall_calls.engine.lane import CallLane

__all__ = ["CallerWords", "MediaWatch"]

_log = logging.getLogger("voicecall.calls")
_MEDIA_GRACE_S = 2.0
_LEAST_WAIT_S = 0.05
_WORDS_PATIENCE_S = 1.0
"""How long the caller's words may be reported after the answer to them."""


class CallerWords:
    """Adds the caller's words to the record, in order, and answers ``question`` with them. The
    model responds to them by itself, so they do not begin a turn of the dialogue."""

    def __init__(self, lane: CallLane, question: OpenQuestion) -> None:
        self._lane = lane
        self._seam = lane.host.seam
        self._said: list[str] = []
        self._writing: anyio.Event | None = None
        self._heard = News()
        self._question = question

    @property
    def writing(self) -> bool:
        """Something that was said is not in the transcript yet."""
        return self._writing is not None

    def say(self, text: str) -> None:
        self._said.append(text)
        self._heard.tell()
        if self._writing is None:
            self._writing = anyio.Event()
            self._lane.spawn(partial(self._write, self._writing))

    async def _write(self, written: anyio.Event) -> None:
        while self._said:
            text = self._said[0]
            await self._lane.persist(ev.CallerSaid(at=self._seam.now_ms(), text=text, context=True))
            del self._said[0]
            self._question.answered(text)
        self._writing = None
        written.set()

    async def known(self, times: CallerTimes) -> None:
        """Wait a limited time until the transcript contains the words of ``times``."""
        with anyio.move_on_after(_WORDS_PATIENCE_S):
            while times.wordless:
                await self._heard.wait()
            await self.settled()

    async def settled(self) -> None:
        """Wait until the transcript contains everything said so far."""
        while self._writing is not None:
            await self._writing.wait()


class MediaWatch:
    """Detects that the carrier no longer sends audio: ``lost`` is called once nothing has arrived
    for ``patience_ms`` (0: never) plus 2 s."""

    def __init__(
        self, line: AudioLine, seam: Seam, patience_ms: int, *, lost: Callable[[], None]
    ) -> None:
        self._since = seam.monotonic()
        self._line = line
        self._seam = seam
        self._patience = patience_ms / 1000
        self._lost = lost
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the context is entered."""
        self._since = self._seam.monotonic()
        if self._patience:
            self._look()
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _look(self) -> None:
        now = self._seam.monotonic()
        if self._line.socket is None:
            # A lost socket has its own deadline.
            self._since = now
        idle = now - max(self._since, self._line.heard_at)
        if idle < self._patience:
            self._look_in(self._patience - idle)
        elif idle < self._patience + _MEDIA_GRACE_S:
            text = "call %s: no caller audio for %g s"
            _log.warning(text, self._line.call_id, self._patience)
            self._look_in(self._patience + _MEDIA_GRACE_S - idle)
        else:
            self._lost()

    def _look_in(self, seconds: float) -> None:
        # A timer, because a task per call would exist only for this.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(seconds, _LEAST_WAIT_S), self._look)
