"""Barge-in by voice: the bot pauses as soon as a voice speaks over it; words decide what follows.

A pause loses nothing: unheard audio waits in the line. If the recogniser understands words, or the
voice lasts, the reply is given up; after an acknowledgement or a noise the bot goes on where it
stopped.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from voicecall.audio import AudioFormat
from voicecall.seam import Seam
from voicecall.turn import TurnDetector, VoiceStarted, VoiceStopped
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.turntaking import TurnTaking

__all__ = ["VoiceGate"]

_log = logging.getLogger("voicecall.calls")
_FAILED = "call %s: the voice detector failed; only recognised speech interrupts the bot"
_GRACE_S = 0.6
"""From the end of a voice until the bot goes on: time for the recogniser to report a word."""
_LONGEST_S = 4.0
"""Longest pause without a report of the recogniser: the voice may be music or a television."""
_IN_VAIN = 3
_IN_VAIN_S = 10.0
"""After this many pauses without a word within this many seconds, the bot is not paused again until
it has finished: the voice may be a child's, or its own from a loudspeaker."""


class VoiceGate:
    """Pauses the line while a voice speaks over the bot, and resumes it unless that becomes an
    interruption.

    ``paused`` is called when the bot falls silent, ``lasted`` when a voice has gone on for so long
    that it is an interruption."""

    def __init__(
        self,
        detector: TurnDetector,
        audio_format: AudioFormat,
        line: AudioLine,
        turns: TurnTaking,
        seam: Seam,
        *,
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
        paused: Callable[[], None],
        lasted: Callable[[], None],
    ) -> None:
        self._detector: TurnDetector | None = detector
        self._format = audio_format
        self._line = line
        self._turns = turns
        self._seam = seam
        self._spawn = spawn
        self._paused = paused
        self._lasted = lasted
        self._bytes = 0
        self._voice_began: float | None = None
        self._voiced_until = 0.0
        self._paused_at: float | None = None
        self._lasted_s = 0.0
        self._waits = False
        self._in_vain: deque[float] = deque(maxlen=_IN_VAIN)

    def hear(self, audio: bytes) -> None:
        """Take the next caller audio."""
        detector = self._detector
        if detector is None:
            return
        self._bytes += len(audio)
        try:
            events = detector.process(audio)
        except (Exception, SystemExit):  # noqa: BLE001 (a detector's code can raise anything)
            _log.warning(_FAILED, self._line.call_id, exc_info=True)
            self._do_without()
            return
        if not events and self._voice_began is None:
            return
        now = self._seam.monotonic()
        for event in events:
            if isinstance(event, VoiceStarted):
                self._voice_began = now - self._age_s(event.at_ms)
            elif isinstance(event, VoiceStopped):
                self._voice_began = None
                self._voiced_until = now - self._age_s(event.at_ms)
        if self._voice_began is None:
            return
        self._voiced_until = now
        if self._paused_at is None:
            if self._turns.voice_pauses(self._voice_began, now) and not self._is_vain():
                self._pause(now, now - self._voice_began)
        elif self._turns.voice_lasted(self._voice_began, now):
            self._lasted()
        elif now - self._paused_at >= _LONGEST_S:
            # The rest of this voice is ignored.
            self._voice_began = None
            self._in_vain.append(self._paused_at)
            self._resume()

    def _is_vain(self) -> bool:
        """Whether the bot was paused in vain too often to be paused again."""
        times = self._in_vain
        return len(times) == _IN_VAIN and times[-1] - times[0] < _IN_VAIN_S

    def _do_without(self) -> None:
        """The detector has failed: for the rest of the call only the recogniser reports speech."""
        self._detector = None
        self._turns.gated = False
        self._resume()

    def nothing_said(self) -> None:
        """The recogniser found no words, or only an acknowledgement."""
        if self._voice_began is None:
            self._resume()

    def interrupted(self) -> tuple[float, float] | None:
        """The pause became an interruption. Returns how many seconds ago it began and how long the
        voice had lasted by then; None if the bot was not paused. The line stays silent until it is
        cleared, or :meth:`over`."""
        if self._paused_at is None:
            return None
        ago_s = self._seam.monotonic() - self._paused_at
        self._paused_at = None
        return ago_s, self._lasted_s

    def over(self) -> None:
        """The bot has finished speaking, or was stopped."""
        self._paused_at = None
        self._in_vain.clear()
        self._line.resume()

    def _age_s(self, at_ms: int) -> float:
        return (self._format.duration_ms(self._bytes) - at_ms) / 1000

    def _pause(self, now: float, lasted_s: float) -> None:
        self._paused_at = now
        self._lasted_s = lasted_s
        self._line.pause()
        self._paused()
        if not self._waits:
            self._waits = True
            self._spawn(self._wait)

    async def _wait(self) -> None:
        """Resume when it has been quiet for long enough, even if no more audio comes."""
        while self._paused_at is not None:
            wait = self._voiced_until + _GRACE_S - self._seam.monotonic()
            if wait <= 0:
                self._in_vain.append(self._paused_at)
                self._resume()
            else:
                await anyio.sleep(wait)
        self._waits = False

    def _resume(self) -> None:
        if self._paused_at is not None:
            self._paused_at = None
            self._turns.own.sounds(self._seam.monotonic())
            self._line.resume()
