"""The session of a full-duplex voice model: opened, renewed before it expires, reopened after a
loss."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial

import anyio
import anyio.abc
import anyio.lowlevel

from voicecall.audio import Converter
from voicecall.errors import ProviderTimeout, VoicecallError
from voicecall.realtime import (
    RealtimeEvent,
    RealtimeOptions,
    RealtimeProvider,
    RealtimeSession,
    SessionExpiring,
    SessionLost,
)
from voicecall.seam import Seam
from voicecall_calls.apart import check_plain, held
from voicecall_calls.conversation.line import AudioLine
from voicecall_calls.conversation.losses import kind_of, why_lost
from voicecall_calls.troubles import Trouble

__all__ = ["ModelLink"]

_log = logging.getLogger("voicecall.calls")
_BUFFER_MS = 10_000
_OPEN_S = 10.0
_CLOSE_S = 3.0
_HEALTHY_S = 30.0
_REOPEN_AFTER_S = 0.25
_REOPEN_LATEST_S = 8.0
_RENEW_BEFORE_MS = 2_000
_WHOSE = "the voice model"

_Job = Callable[[RealtimeSession], Awaitable[None]]


class ModelLink:
    """Keeps a session of the voice model open during a call.

    - ``options`` is a context with the options of the next session
    - ``opened`` and ``closed`` are called for each session, ``event`` for each of its events
    - ``listen`` is called with the function that should get caller audio from now on (at first
      :meth:`keep`), and returns the one that should get the audio kept so far
    - ``pause`` waits until a session can be left
    - ``trouble`` records each session that fails
    - ``lost`` is called when no session follows any more

    The first session is opened at once, but used only after :meth:`begin`."""

    def __init__(
        self,
        provider: RealtimeProvider,
        line: AudioLine,
        seam: Seam,
        *,
        options: Callable[[], AbstractContextManager[RealtimeOptions]],
        opened: Callable[[], None],
        closed: Callable[[], None],
        event: Callable[[RealtimeEvent], None],
        listen: Callable[[Callable[[bytes], None]], Callable[[bytes], None]],
        pause: Callable[[], Awaitable[None]],
        lost: Callable[[], None],
        trouble: Trouble,
    ) -> None:
        self.session: RealtimeSession | None = None
        self._provider = provider
        self._line = line
        self.call_id = line.call_id
        self._seam = seam
        self._options = options
        self._opened = opened
        self._closed = closed
        self._event = event
        self._listen = listen
        self._pause = pause
        self._lost = lost
        self._trouble = trouble
        self._tasks: anyio.abc.TaskGroup | None = None
        self._scope = anyio.CancelScope()
        """The current session's."""
        self._muted = False
        self._broken: str | None = None
        """Why the current session is being given up."""
        self._kind = ""
        """The kind of error by which it was lost."""
        self._used = False
        line.failed = self._lose
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._begins = anyio.Event()

    def begin(self) -> None:
        """Start using the session: the media socket has arrived."""
        self._begins.set()

    def keep(self, audio: bytes) -> None:
        """Keep caller audio while there is no session: the last ten seconds."""
        self._waiting.append(audio)
        self._waiting_bytes += len(audio)
        limit = self._line.input_format.size(_BUFFER_MS)
        while self._waiting_bytes > limit:
            self._waiting_bytes -= len(self._waiting.pop(0))

    def _lose(self, error: BaseException) -> None:
        """Give up a session that does not accept the caller's audio."""
        self._broken, self._kind = why_lost(error, _WHOSE), kind_of(error)
        self._listen(self.keep)
        self._scope.cancel()

    def reopen(self) -> None:
        """Replace the session, because the line has another audio format. It counts as closed at
        once, and caller audio that was kept is dropped."""
        self._waiting.clear()
        self._waiting_bytes = 0
        if self.session is not None:
            self._over(self.session)
        self._scope.cancel()

    def mute(self) -> None:
        """Let this session and all later ones hear silence."""
        self._muted = True
        if self.session is not None:
            self.session.mute(True)

    def do(self, job: _Job) -> None:
        """Run ``job`` as a task of the current session; does nothing without a session."""
        session, tasks = self.session, self._tasks
        if session is not None and tasks is not None:
            tasks.start_soon(self._guarded, job, session)

    async def _guarded(self, job: _Job, session: RealtimeSession) -> None:
        try:
            await job(session)
        except VoicecallError as error:
            text = "call %s: the voice model refused a request: %s"
            _log.warning(text, self.call_id, error)
        except (Exception, SystemExit):  # noqa: BLE001 (a model's code can raise anything)
            # If the session is lost too, it reports that itself.
            _log.exception("call %s: a request to the voice model failed", self.call_id)

    async def run(self) -> None:
        """Keep a session open until that is no longer possible."""
        reason = await self._hold()
        _log.warning("call %s: the voice model is given up: %s", self.call_id, reason)
        await self._begins.wait()
        self._lost()

    async def _hold(self) -> str:
        """Open one session after another. Returns why there are no more."""
        failures = renewals = 0
        while True:
            began = self._seam.monotonic()
            self._broken, self._used = None, False
            with self._options() as options:
                reason = await self._one_session(options)
            if self._seam.monotonic() - began >= _HEALTHY_S:
                failures = renewals = 0
            if reason is None:
                # The pause lets the record receive what was said last, which the next session is
                # given, and slows down sessions that expire as soon as they are open.
                if self._used:
                    await anyio.sleep(min(_REOPEN_AFTER_S * 2**renewals, _REOPEN_LATEST_S))
                    renewals += 1
                continue
            await anyio.lowlevel.checkpoint_if_cancelled()
            _log.warning("call %s: the voice model's session is lost: %s", self.call_id, reason)
            self._trouble.failed(self.call_id, self._kind)
            failures += 1
            if failures > 1:
                return reason
            await anyio.sleep(_REOPEN_AFTER_S)

    async def _one_session(self, options: RealtimeOptions) -> str | None:
        """Hold one session. Returns why it was lost; None if it is to be renewed."""
        reason, self._kind = None, ProviderTimeout.__name__
        self._scope = scope = anyio.CancelScope(deadline=anyio.current_time() + _OPEN_S)
        try:
            with scope:
                async with held(
                    self._provider.session(options), f"the session of {_WHOSE}"
                ) as session:
                    scope.deadline = math.inf
                    await self._begins.wait()
                    # The line's format may have changed in the meantime.
                    await anyio.lowlevel.checkpoint_if_cancelled()
                    reason = await self._converse(session, options)
                    scope.deadline = anyio.current_time() + _CLOSE_S
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a model's code)
            why = why_lost(error, _WHOSE)
            reason, self._kind = (reason, self._kind) if reason else (why, kind_of(error))
        if reason is None and anyio.current_time() >= scope.deadline:
            reason = f"no session within {_OPEN_S:g} s"
        return self._broken or reason

    async def _converse(self, session: RealtimeSession, options: RealtimeOptions) -> str | None:
        reason: str | None = "the session ended"
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                self._begin(session, options)
                async for event in session:
                    if self.session is not session:
                        reason = None
                        break
                    if isinstance(event, SessionLost) and event.fatal:
                        reason = event.reason
                        break
                    self._take(event)
            except (Exception, SystemExit) as error:  # noqa: BLE001 (a model's code)
                reason, self._kind = why_lost(error, _WHOSE), kind_of(error)
            finally:
                self._over(session)
                tasks.cancel_scope.cancel()
        return reason

    def _over(self, session: RealtimeSession) -> None:
        """Stop using ``session``."""
        if self.session is session:
            self.session = self._tasks = None
            self._listen(self.keep)
            self._closed()

    def _begin(self, session: RealtimeSession, options: RealtimeOptions) -> None:
        check_plain(session, "send_audio", "mute")
        converter = Converter(self._line.input_format, options.input_format)
        self.session, self._used = session, True
        self._kind = SessionLost.__name__
        if self._muted:
            session.mute(True)
        self._trouble.worked()
        self._opened()
        send = session.send_audio

        def convert(audio: bytes) -> None:
            send(converter.process(audio))

        hear = self._listen(send if converter.identity else convert)
        while self._waiting:
            audio = self._waiting.pop(0)
            self._waiting_bytes -= len(audio)
            hear(audio)

    def _take(self, event: RealtimeEvent) -> None:
        match event:
            case SessionLost(reason=reason):
                _log.info(
                    "call %s: the voice model reports an interruption: %s", self.call_id, reason
                )
            case SessionExpiring(in_ms=in_ms):
                if not self._provider.capabilities.resumption:
                    self.do(partial(self._renew, in_ms))
            case _ if not isinstance(event, RealtimeEvent):
                raise TypeError(f"{type(event).__name__} is not an event of a voice model")
            case _:
                self._event(event)

    async def _renew(self, in_ms: int, _session: RealtimeSession) -> None:
        """Leave a session that is about to expire, if possible between utterances and while no tool
        runs."""
        with anyio.move_on_after(max(in_ms - _RENEW_BEFORE_MS, 0) / 1000):
            await self._pause()
        self._scope.cancel()
