"""Contract of the call store: what must survive a crash.

Everything that belongs together is one :class:`Commit`, stored whole or not at all. A commit is
durable when :meth:`CallStore.commit` returns.
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
    """The answer that a webhook got; its replay gets the same. ``key`` is of the request."""

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
    """What is known of a caller under the pairing policy, by E.164 ``number``.

    ``status`` is ``pending`` (the caller was told ``code``, which counts until ``expires_at``),
    ``approved`` or ``revoked``.
    """

    number: str
    status: str
    code: str
    at: int
    expires_at: int


class TurnRow(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one turn, milliseconds since the epoch; None where a step did not happen."""

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
        """From the end of the caller's speech to the first audio sent."""
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

    ``record`` is inserted or replaced together with its aliases and deadlines; of its transcript
    the entries from ``transcript_from`` on are new. ``processed_keys`` are the dedupe keys of
    carrier events: one that exists already makes the whole commit fail with ``DuplicateKey``, as
    does the key of ``reply`` or of ``reservation``.
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
        """The newest record of a call, by our id."""

    @abstractmethod
    async def find(self, provider: str, provider_call_id: str) -> CallRecord | None:
        """The newest record of the call that ever had this carrier id."""

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
        """Why calls cannot be stored just now, one sentence each, as far as is known without
        trying; empty when all is well."""
        return ()

    @abstractmethod
    async def prune(self, now_ms: int, *, keep_calls: int, keep_days: int) -> int:
        """Drop what is over and old (never a live call); how many calls went."""
