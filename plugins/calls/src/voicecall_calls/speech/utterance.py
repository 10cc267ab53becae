"""An utterance of a chain: each member in turn is given all of the text so far."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from voicecall.errors import ProviderError, ProviderTimeout, ProviderUnavailable
from voicecall.media import AudioSink
from voicecall.tts import Utterance
from voicecall_calls.apart import check_plain
from voicecall_calls.speech.seat import Seat, as_provider_error
from voicecall_calls.spoken.pieces import pieces

if TYPE_CHECKING:
    from voicecall_calls.speech.chain import ChainSession

__all__ = ["ChainUtterance"]

_log = logging.getLogger("voicecall.calls")


class ChainUtterance(Utterance):
    """Tries the members of the chain, one after the other, until one has spoken the text."""

    def __init__(self, session: ChainSession, item_id: str, sink: AudioSink) -> None:
        self.item_id = item_id
        self.sink = sink
        self.texts: list[str] = []
        self.begun = anyio.Event()
        self.flushed = anyio.Event()
        self._session = session
        self._attempt: _Attempt | None = None
        self._error: ProviderError | None = None
        self._finished = anyio.Event()
        self._scope = anyio.CancelScope()

    def send(self, text: str) -> None:
        for piece in pieces(text, self._session.max_text):
            self.texts.append(piece)
            if self._attempt is not None:
                self._attempt.send(piece)
        if self.has_words:
            self.begun.set()

    def flush(self) -> None:
        self.flushed.set()
        if self._attempt is not None:
            self._attempt.flush()

    def cancel(self, heard_ms: float) -> str | None:
        self._scope.cancel()
        return None if self._attempt is None else self._attempt.cancel(heard_ms)

    async def done(self) -> None:
        await self._finished.wait()
        if self._error is not None:
            raise self._error

    @property
    def has_words(self) -> bool:
        return any(character.isalnum() for text in self.texts for character in text)

    async def run(self) -> None:
        """Speak. Runs as a task of the session."""
        try:
            with self._scope:
                self._error = await self._speak()
        finally:
            self._finished.set()

    async def _speak(self) -> ProviderError | None:
        session = self._session
        errors: dict[str, ProviderError] = {}
        while (member := session.next(errors)) is not None:
            self._attempt = attempt = _Attempt(self, session.seat(member), session.timeout_s)
            error = await attempt.run()
            if error is None:
                member.rest.spoke()
                return None
            if attempt.written:
                # No other member says the rest: it is unknown at which word the audio broke off.
                session.failed(member, {member.id: error})
                return error
            errors[member.id] = error
            session.failed(member, errors)
        return session.joined(errors)


class _Attempt:
    """One member's attempt. It ends with the member's result, its session, or its time limit."""

    def __init__(self, words: ChainUtterance, seat: Seat, timeout_s: float) -> None:
        self.written = 0
        self._words = words
        self._seat = seat
        self._timeout_s = timeout_s
        self._inner: Utterance | None = None
        self._over = False
        self._error: ProviderError | None = None
        self._scope = anyio.CancelScope()

    def write(self, item_id: str, audio: bytes) -> None:
        """The member's sink. A member that was given up may still write to it."""
        if not self._over:
            self.written += len(audio)
            self._words.sink.write(item_id, audio)

    def send(self, text: str) -> None:
        if self._inner is not None:
            try:
                self._inner.send(text)
            except (Exception, SystemExit) as error:  # noqa: BLE001 (a provider's code)
                self._end(as_provider_error(error, self._seat.id))

    def flush(self) -> None:
        if self._inner is not None:
            try:
                self._inner.flush()
            except (Exception, SystemExit) as error:  # noqa: BLE001 (a provider's code)
                self._end(as_provider_error(error, self._seat.id))

    def cancel(self, heard_ms: float) -> str | None:
        self._over = True
        if self._inner is None:
            return None
        try:
            return self._inner.cancel(heard_ms)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a provider's code)
            _log.warning("speech could not be stopped: %s", as_provider_error(error, self._seat.id))
            return None

    async def run(self) -> ProviderError | None:
        async with anyio.create_task_group() as tasks:
            self._scope = tasks.cancel_scope
            for watch in (self._say, self._watch_session, self._watch_time):
                tasks.start_soon(self._first_of, watch)
        if self._error is not None:
            self.cancel(0.0)
        return self._error

    async def _first_of(self, watch: Callable[[], Awaitable[ProviderError | None]]) -> None:
        self._end(await watch())

    def _end(self, error: ProviderError | None) -> None:
        if not self._over:
            self._over = True
            self._error = error
            self._scope.cancel()

    async def _say(self) -> ProviderError | None:
        seat, words = self._seat, self._words
        await seat.settled.wait()
        if seat.session is None:
            return seat.failure
        try:
            inner = seat.session.utterance(words.item_id, self)
            check_plain(inner, "send", "flush", "cancel")
            for text in words.texts:
                inner.send(text)
            if words.flushed.is_set():
                inner.flush()
            self._inner = inner
            await inner.done()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a provider's code)
            return as_provider_error(error, seat.id)
        if words.has_words and not self.written:
            return ProviderUnavailable("gave no audio", provider=seat.id)
        return None

    async def _watch_session(self) -> ProviderError:
        await self._seat.over.wait()
        return self._seat.failure

    async def _watch_time(self) -> ProviderError:
        words = self._words
        await words.begun.wait()
        await anyio.sleep(self._timeout_s)
        if self.written:
            await words.flushed.wait()
            seen = -1
            while self.written != seen:
                seen = self.written
                await anyio.sleep(self._timeout_s)
        return ProviderTimeout(f"gave no audio for {self._timeout_s:g} s", provider=self._seat.id)
