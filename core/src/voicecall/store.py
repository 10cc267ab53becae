"""Contract of the call store: what must survive a crash.

Everything that belongs together is one :class:`Commit`, stored as a whole or not at all. A commit
is durable when :meth:`CallStore.commit` returns. Times are milliseconds since the epoch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .model import CallRecord
from .providers import Provider

__all__ = [
    "Approval",
    "CallStore",
    "Commit",
    "DialReservation",
    "RecordedReply",
    "StoredEvent",
    "TurnRow",
]


class StoredEvent(msgspec.Struct, frozen=True):
    """One accepted event, as JSON-ready data."""

    at: int
    type: str
    data: Mapping[str, Any]


class RecordedReply(msgspec.Struct, frozen=True):
    """The answer to a webhook, which its replay gets too. ``key`` is that of the request."""

    key: str
    at: int
    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class DialReservation(msgspec.Struct, frozen=True):
    """The intent to dial, stored before the dial request is sent. ``key`` is the caller's
    idempotency key or the call id; a key dials once."""

    key: str
    call_id: str
    at: int


class Approval(msgspec.Struct, frozen=True):
    """What is known about a caller under the pairing policy, by E.164 ``number``.

    ``status`` is ``pending`` (the caller was told ``code``, which is valid until ``expires_at``),
    ``approved`` or ``revoked``.
    """

    number: str
    status: str
    code: str
    at: int
    expires_at: int


class TurnRow(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one turn, milliseconds since the epoch; None where a step did not happen.
    ``speech_ended`` is when that became known, behind the silence that ends an utterance."""

    call_id: str
    turn_id: str
    kind: str
    """``reply``, ``message``, ``continue`` or ``realtime``."""
    at: int
    speech_started: int | None = None
    speech_ended: int | None = None
    stt_final: int | None = None
    agent_start: int | None = None
    first_token: int | None = None
    agent_done: int | None = None
    tts_first_byte: int | None = None
    first_audio_sent: int | None = None
    playback_done: int | None = None
    barge_in_at: int | None = None
    barge_in_stop_ms: int | None = None
    filler: bool = False
    failed: str | None = None

    @property
    def latency_ms(self) -> int | None:
        """From when the end of the caller's speech is known to the first audio sent."""
        begin = self.speech_ended or self.stt_final or self.agent_start
        if begin is None or self.first_audio_sent is None:
            return None
        return self.first_audio_sent - begin

    @property
    def listen_wait_ms(self) -> int | None:
        """From the end of a question to its answer."""
        if self.kind != "continue" or self.stt_final is None or self.playback_done is None:
            return None
        return max(self.stt_final - self.playback_done, 0)


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction.

    ``record`` is inserted or replaced together with its aliases and deadlines; the entries of its
    transcript from index ``transcript_from`` on are new. ``processed_keys`` are the dedupe keys of
    carrier events. If one of them, or the key of ``reply`` or ``reservation``, is already stored,
    the whole commit fails with ``DuplicateKey``.
    """

    record: CallRecord | None = None
    transcript_from: int = 0
    events: Sequence[StoredEvent] = ()
    processed_keys: Sequence[str] = ()
    reply: RecordedReply | None = None
    reservation: DialReservation | None = None
    turns: Sequence[TurnRow] = ()
    approvals: Sequence[Approval] = ()


class CallStore(Provider):
    """Open while its lifespan is entered."""

    @abstractmethod
    async def commit(self, commit: Commit) -> None:
        """Store one transaction. Raises :exc:`voicecall.errors.DuplicateKey` or
        :exc:`voicecall.errors.StoreError`; then nothing of it is stored."""

    @abstractmethod
    async def load(self, call_id: str) -> CallRecord | None:
        """The newest record of a call, by our id; None if it is unknown."""

    @abstractmethod
    async def find(self, provider: str, provider_call_id: str) -> CallRecord | None:
        """The newest record of the call that has, or ever had, this carrier id; None if it is
        unknown."""

    @abstractmethod
    async def live(self) -> Sequence[CallRecord]:
        """All calls that are not over."""

    @abstractmethod
    async def recent(self, limit: int) -> Sequence[CallRecord]:
        """The newest calls, newest first."""

    @abstractmethod
    async def is_processed(self, key: str) -> bool:
        """Whether a carrier event with this key is stored."""

    @abstractmethod
    async def reply(self, key: str) -> RecordedReply | None:
        """The recorded answer to a webhook, kept for 24 hours."""

    @abstractmethod
    async def reservation(self, key: str) -> DialReservation | None:
        """The dial reservation with this idempotency key."""

    @abstractmethod
    async def events(self, call_id: str) -> Sequence[StoredEvent]:
        """The accepted events of a call, oldest first."""

    @abstractmethod
    async def turns(self, *, call_id: str | None = None, limit: int = 200) -> Sequence[TurnRow]:
        """Turns of one call or of all, newest first."""

    @abstractmethod
    async def approvals(self, number: str | None = None) -> Sequence[Approval]:
        """Approvals, newest first: all of them, or that of one number."""

    def problems(self) -> Sequence[str]:
        """Why calls cannot be stored at the moment, one sentence per reason, as far as is known
        without trying; empty if they can."""
        return ()

    @abstractmethod
    async def prune(self, now_ms: int, *, keep_calls: int, keep_days: int) -> int:
        """Delete finished calls (never live ones), except the newest ``keep_calls`` that ended
        within ``keep_days``. Refused ones (:attr:`CallRecord.refused`) are counted apart: as many
        of them stay. Returns how many calls were deleted."""
