"""Hearing over the audio line: a transcription session that outlives sockets and is reopened."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import anyio
import anyio.lowlevel

from voicecall.audio import AudioFormat
from voicecall.errors import ProviderTimeout
from voicecall.seam import Seam
from voicecall.transcription import (
    Final,
    Partial,
    SessionLost,
    SpeechEnded,
    SpeechStarted,
    TranscriptionEvent,
    TranscriptionOptions,
    TranscriptionProvider,
    TranscriptionSession,
)
from voicecall_calls.apart import check_plain, held
from voicecall_calls.conversation.losses import kind_of, refused, why_lost
from voicecall_calls.troubles import Trouble

__all__ = ["Ear"]

_log = logging.getLogger("voicecall.calls")
_BUFFER_MS = 10_000
_OPEN_S = 10.0
_CLOSE_S = 3.0
_HEALTHY_S = 30.0
_WHOSE = "speech recognition"
_WAITS_S = (0.25, 1.0, 2.0)
"""Waits before each attempt to reopen a lost session; after the last one the call is deaf."""


class Ear:
    """Keeps a transcription session open for a call and passes its events to ``heard``.

    If a session is lost during an utterance, ``heard`` also gets the end of that utterance, with
    what was understood of it. ``deaf`` is called once, when recognition is lost for good;
    ``trouble`` is told of each session that fails."""

    def __init__(
        self,
        provider: TranscriptionProvider,
        options: TranscriptionOptions,
        seam: Seam,
        *,
        call_id: str,
        heard: Callable[[TranscriptionEvent], None],
        deaf: Callable[[str], None],
        trouble: Trouble,
    ) -> None:
        self._provider = provider
        self._options = options
        self._seam = seam
        self._call_id = call_id
        self._heard = heard
        self._deaf = deaf
        self._trouble = trouble
        self._session: TranscriptionSession | None = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._sent = 0
        self._limit = options.audio_format.size(_BUFFER_MS)
        self._ready = anyio.Event()
        self._scope = anyio.CancelScope()
        """The current session's."""
        self._broken: str | None = None
        """Why the current session is being given up."""
        self._kind = ""
        """The kind of error by which it was lost."""
        self._refused = False
        """The vendor refused the last session, and would refuse the next."""
        self._utterance: SpeechStarted | Partial | None = None
        """The last event of an utterance that is not over."""
        self._begun: int | None = None
        """The last utterance whose beginning was reported."""

    def expect(self, audio_format: AudioFormat) -> None:
        """The caller's audio comes in this format from now on: drop what waits and open the session
        anew."""
        self._options = replace(self._options, audio_format=audio_format)
        self._limit = audio_format.size(_BUFFER_MS)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._session = None
        if self._ready.is_set():
            self._ready = anyio.Event()
        self._scope.cancel()

    def hear(self, audio: bytes) -> None:
        """Pass caller audio on, or keep it (bounded, oldest dropped) until a session is open."""
        session = self._session
        if session is not None:
            self._sent += len(audio)
            try:
                session.send_audio(audio)
            except (Exception, SystemExit) as error:  # noqa: BLE001 (a recogniser's code)
                self._give_up(error)
            else:
                return
        self._waiting.append(audio)
        self._waiting_bytes += len(audio)
        while self._waiting_bytes > self._limit:
            self._waiting_bytes -= len(self._waiting.popleft())

    def _give_up(self, error: BaseException) -> None:
        """The session does not take audio: it is lost."""
        self._session = None
        self._broken, self._kind = why_lost(error, _WHOSE), kind_of(error)
        self._scope.cancel()

    def age_s(self, at_ms: int) -> float:
        """Seconds of audio since position ``at_ms`` of the session's audio clock."""
        return max(self._options.audio_format.duration_ms(self._sent) - at_ms, 0.0) / 1000

    async def ready(self) -> None:
        """Wait for the first session, or until an attempt to open one has failed. What the caller
        says meanwhile is kept for the next one."""
        await self._ready.wait()

    @property
    def state(self) -> str:
        """``ready``, ``late`` (still being opened) or ``lost``."""
        if self._session is not None:
            return "ready"
        return "lost" if self._ready.is_set() else "late"

    async def run(self) -> None:
        """Keep a session open until cancelled or deaf."""
        failures = 0
        while True:
            began = self._seam.monotonic()
            self._broken = None
            reason = await self._one_session()
            await anyio.lowlevel.checkpoint_if_cancelled()
            self._break_off()
            if self._seam.monotonic() - began >= _HEALTHY_S:
                failures = 0
            if reason is None:
                continue
            _log.warning("call %s: transcription lost: %s", self._call_id, reason)
            self._trouble.failed(self._call_id, self._kind)
            self._ready.set()
            if self._refused or failures >= len(_WAITS_S):
                break
            await anyio.sleep(_WAITS_S[failures])
            failures += 1
        self._deaf(reason)

    def _break_off(self) -> None:
        """Report the end of an utterance that the lost session cannot end any more."""
        last, self._utterance = self._utterance, None
        if last is None:
            return
        if isinstance(last, Partial) and last.text.strip():
            self._heard(Final(utterance=last.utterance, at_ms=last.at_ms, text=last.text))
        self._heard(SpeechEnded(utterance=last.utterance, at_ms=last.at_ms))

    async def _one_session(self) -> str | None:
        """Hold one session; returns why it was lost, None if the format has changed."""
        options = self._options
        opened = self._refused = False
        reason, self._kind = f"no session within {_OPEN_S:g} s", ProviderTimeout.__name__
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + _OPEN_S) as self._scope:
                async with held(
                    self._provider.session(options), f"the session of {_WHOSE}"
                ) as session:
                    opened = True
                    self._scope.deadline = math.inf
                    # The format may have changed meanwhile.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    reason = await self._attend(session)
                    self._break_off()
                    self._scope.deadline = anyio.current_time() + _CLOSE_S
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a recogniser's code)
            reason, self._kind = why_lost(error, _WHOSE), kind_of(error)
            self._refused = not opened and refused(error)
        return (self._broken or reason) if self._options is options else None

    async def _attend(self, session: TranscriptionSession) -> str:
        """Handle the events of ``session``; returns why it is over."""
        try:
            check_plain(session, "send_audio")
            self._begun = None
            self._kind = SessionLost.__name__
            self._session = session
            self._sent = self._waiting_bytes
            while self._waiting:
                audio = self._waiting.popleft()
                self._waiting_bytes -= len(audio)
                session.send_audio(audio)
            self._ready.set()
            self._trouble.worked()
            async for event in session:
                if isinstance(event, SessionLost):
                    if event.fatal:
                        return event.reason
                    text = "call %s: transcription interrupted: %s"
                    _log.info(text, self._call_id, event.reason)
                    continue
                if not isinstance(event, TranscriptionEvent):
                    raise TypeError(f"{type(event).__name__} is not an event of a recogniser")
                self._tell_begin(event)
                if isinstance(event, SpeechStarted | Partial):
                    self._utterance = event
                elif isinstance(event, Final | SpeechEnded):
                    self._utterance = None
                self._heard(event)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a recogniser's code)
            return why_lost(error, _WHOSE)
        finally:
            self._session = None
        return "the session ended"

    def _tell_begin(self, event: TranscriptionEvent) -> None:
        """Report the beginning of an utterance of which the recogniser reports only text."""
        if isinstance(event, SpeechStarted):
            self._begun = event.utterance
        elif isinstance(event, Partial | Final):
            again = isinstance(event, Partial) and self._utterance is None
            if event.utterance != self._begun or again:
                self._begun = event.utterance
                self._heard(SpeechStarted(utterance=event.utterance, at_ms=event.at_ms))
