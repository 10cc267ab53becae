"""Contract of the call store: what must survive a crash.

Data that belongs together is one :class:`Commit`, stored as a whole or not at all. A commit is
durable when :meth:`CallStore.commit` returns. Times are in milliseconds since the epoch.
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
    """The answer to a webhook, which is also sent to a replay. ``key`` is the key of the request or
    its event."""

    key: str
    at: int
    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class DialReservation(msgspec.Struct, frozen=True):
    """The intent to dial, stored before the dial request is sent. ``key`` is the client's
    idempotency key, or the call id; a key dials once."""

    key: str
    call_id: str
    at: int


class Approval(msgspec.Struct, frozen=True):
    """The state of a caller under the pairing policy, by E.164 ``number``.

    ``status`` is ``pending`` (the caller was given ``code``, which is valid until ``expires_at``),
    ``approved`` or ``revoked``.
    """

    number: str
    status: str
    code: str
    at: int
    expires_at: int


class TurnRow(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one turn, in milliseconds since the epoch; None for a step that did not happen.
    ``speech_ended`` is when the end of speech became known, after the silence that ends an
    utterance."""

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
        """Milliseconds from the time the end of the caller's speech is known to the first audio
        sent."""
        begin = self.speech_ended or self.stt_final or self.agent_start
        if begin is None or self.first_audio_sent is None:
            return None
        return self.first_audio_sent - begin

    @property
    def listen_wait_ms(self) -> int | None:
        """Milliseconds from the end of a question to its answer."""
        if self.kind != "continue" or self.stt_final is None or self.playback_done is None:
            return None
        return max(self.stt_final - self.playback_done, 0)


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction.

    ``record`` is inserted or replaced together with its aliases and deadlines; the entries of its
    transcript from index ``transcript_from`` on are new. ``processed_keys`` are the deduplication
    keys of carrier events. If one of them, or the key of ``reply`` or ``reservation``, is already
    stored, the whole commit fails with ``DuplicateKey``.
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
    """A call store, open during its lifespan. Methods other than :meth:`commit` raise
    :exc:`voicecall.errors.StoreError` if they fail."""

    @abstractmethod
    async def commit(self, commit: Commit) -> None:
        """Store one transaction. Raises :exc:`voicecall.errors.DuplicateKey` or
        :exc:`voicecall.errors.StoreError`; then nothing of it is stored, unless the answer of the
        database was lost: the host checks that later, by the keys and the id of the call."""

    @abstractmethod
    async def load(self, call_id: str) -> CallRecord | None:
        """The current record of a call, by our id; None if the id is unknown."""

    @abstractmethod
    async def find(self, provider: str, provider_call_id: str) -> CallRecord | None:
        """The current record of the call that has, or ever had, this id at the carrier
        ``provider``; None if the id is unknown."""

    @abstractmethod
    async def live(self) -> Sequence[CallRecord]:
        """The records of all calls that are not over; read at start to recover them."""

    @abstractmethod
    async def recent(self, limit: int) -> Sequence[CallRecord]:
        """The newest ``limit`` calls, newest first."""

    @abstractmethod
    async def is_processed(self, key: str) -> bool:
        """Whether a carrier event with this key was stored."""

    @abstractmethod
    async def reply(self, key: str) -> RecordedReply | None:
        """The recorded answer to a webhook, kept for 24 hours; None if there is none."""

    @abstractmethod
    async def reservation(self, key: str) -> DialReservation | None:
        """The dial reservation with this key; None if there is none."""

    @abstractmethod
    async def events(self, call_id: str) -> Sequence[StoredEvent]:
        """The accepted events of a call, oldest first."""

    @abstractmethod
    async def turns(self, *, call_id: str | None = None, limit: int = 200) -> Sequence[TurnRow]:
        """The turns of one call, or of all, newest first, at most ``limit``."""

    @abstractmethod
    async def approvals(self, number: str | None = None) -> Sequence[Approval]:
        """Approvals, newest first: all of them, or only that of ``number``."""

    def problems(self) -> Sequence[str]:
        """Why calls cannot be stored at present, one sentence per reason, as far as known without
        trying; empty if they can."""
        return ()

    @abstractmethod
    async def prune(self, now_ms: int, *, keep_calls: int, keep_days: int) -> int:
        """Delete finished calls (never live ones), except the newest ``keep_calls`` that ended
        within ``keep_days``. Refused calls (:attr:`CallRecord.refused`) are counted separately, so
        that as many of them stay. Returns the number of calls deleted."""
