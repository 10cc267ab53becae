"""Several speech providers used as one: if one fails, the next one speaks.

A call keeps the provider that speaks for it until that provider fails to open a session, to speak
an utterance, or to produce audio in time. The next member of the chain then says the utterance,
unless part of it was already written. New calls begin with the first provider that is not resting.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.abc

from voicecall.audio.formats import AudioFormat
from voicecall.errors import ProviderError, ProviderTimeout, ProviderUnavailable
from voicecall.media import AudioSink
from voicecall.seam import Seam
from voicecall.tts import SpeechProvider, SpeechSession, Utterance
from voicecall_calls.speech.seat import Seat
from voicecall_calls.speech.utterance import ChainUtterance
from voicecall_calls.troubles import Trouble

__all__ = ["ChainMember", "ChainSpeech", "Rest"]

_log = logging.getLogger("voicecall.calls")
_REST_S = 30.0
_LONGEST_REST_S = 300.0


class Rest:
    """The rest of a provider after failures, shared by all calls: 30 s, and twice as long after
    each further failure without a success in between, up to 5 minutes.

    Failures during a rest do not prolong it: they have the same cause. ``trouble`` counts them all.
    """

    def __init__(self, seam: Seam, trouble: Trouble) -> None:
        self._seam = seam
        self._trouble = trouble
        self._until = 0.0
        self._next_s = _REST_S

    @property
    def resting(self) -> bool:
        return self._seam.monotonic() < self._until

    def failed(self, call_id: str, reason: str) -> None:
        self._trouble.failed(call_id, reason)
        if not self.resting:
            self._until = self._seam.monotonic() + self._next_s
            self._next_s = min(self._next_s * 2, _LONGEST_REST_S)

    def spoke(self) -> None:
        self._trouble.worked()
        self._until, self._next_s = 0.0, _REST_S


@dataclass(frozen=True, slots=True)
class ChainMember:
    """A provider in a chain, with the voice from its block and the rest shared by all calls."""

    id: str
    provider: SpeechProvider
    voice: str | None
    rest: Rest


class ChainSpeech(SpeechProvider):
    """The speech of one call. ``timeout_s`` limits, for each member, how long its session and its
    first audio may take, counted from the first text, and each gap in the audio once all text is
    there. ``max_text`` is the longest text, in characters, that a member is given at once.

    Raises the error of the member that failed; if several failed, one
    :exc:`~voicecall.errors.ProviderUnavailable` names them all.
    """

    def __init__(
        self, members: Sequence[ChainMember], *, timeout_s: float, max_text: int, call_id: str
    ) -> None:
        self.members = tuple(members)
        self.timeout_s = timeout_s
        self.max_text = max_text
        self.call_id = call_id

    @property
    def patience_s(self) -> float:
        """A little longer than the chain can take until it speaks or gives up."""
        return self.timeout_s * len(self.members) + 1.0

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        """A session; ``voice`` overrides the voice of the first member."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            try:
                session = ChainSession(self, voice, audio_format, tasks)
                await session.open()
                yield session
            except Exception as error:  # noqa: BLE001 (raised again, outside of the group)
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure


class ChainSession(SpeechSession):
    """A session of the chain. At most one member's session is open: the one that speaks for the
    call."""

    def __init__(
        self,
        chain: ChainSpeech,
        voice: str | None,
        audio_format: AudioFormat,
        tasks: anyio.abc.TaskGroup,
    ) -> None:
        self.timeout_s = chain.timeout_s
        self.max_text = chain.max_text
        self._chain = chain
        self._voice = voice
        self._format = audio_format
        self._tasks = tasks
        self._seat: Seat | None = None

    def utterance(self, item_id: str, sink: AudioSink) -> Utterance:
        utterance = ChainUtterance(self, item_id, sink)
        self._tasks.start_soon(utterance.run)
        return utterance

    async def open(self) -> None:
        """Open the session of the first member that can. Raises ``ProviderError``."""
        errors: dict[str, ProviderError] = {}
        while (member := self.next(errors)) is not None:
            seat = self.seat(member)
            with anyio.move_on_after(self.timeout_s):
                await seat.settled.wait()
            if seat.session is not None:
                self._note_spare(member, errors)
                return
            errors[member.id] = seat.failure
            self.failed(member, errors)
        raise self.joined(errors)

    def _note_spare(self, member: ChainMember, errors: Collection[str]) -> None:
        first = self._chain.members[0]
        if member is not first and not errors:
            _log.info(
                "call %s: speech begins with %s, since %s failed recently",
                self._chain.call_id,
                member.id,
                first.id,
            )

    @staticmethod
    def joined(errors: Mapping[str, ProviderError]) -> ProviderError:
        """The failures of several members as one."""
        if len(errors) == 1:
            return next(iter(errors.values()))
        reasons = "; ".join(str(error) for error in errors.values())
        return ProviderUnavailable(f"no speech provider could speak: {reasons}", provider="speech")

    def failed(self, member: ChainMember, errors: Mapping[str, ProviderError]) -> None:
        """``member`` has failed: the next one will speak."""
        member.rest.failed(self._chain.call_id, type(errors[member.id]).__name__)
        if self._seat is not None:
            self._seat.close()
        self._seat = None
        following = self.next(errors)
        if following is None or following is member:
            return
        # The message of an error may quote the text.
        error = errors[member.id]
        reason = "timeout" if isinstance(error, ProviderTimeout) else "provider_error"
        _log.warning(
            "call %s: speech falls back from %s to %s: %s (%s); chain: %s",
            self._chain.call_id,
            member.id,
            following.id,
            reason,
            type(error).__name__,
            ", ".join(one.id for one in self._chain.members),
        )

    def next(self, errors: Collection[str]) -> ChainMember | None:
        """The member that should speak, not counting those in ``errors``: the call's current
        member, else the first that is not resting, else the first."""
        if self._seat is not None:
            return self._seat.member
        left = [member for member in self._chain.members if member.id not in errors]
        return min(left, key=lambda member: member.rest.resting, default=None)

    def seat(self, member: ChainMember) -> Seat:
        """The session of ``member``, opened again if it has ended by itself."""
        if self._seat is None or self._seat.over.is_set():
            first = member is self._chain.members[0]
            voice = (self._voice if first else None) or member.voice
            self._seat = Seat(member, voice, self._format)
            self._tasks.start_soon(self._seat.hold)
        return self._seat
