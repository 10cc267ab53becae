"""The call record: everything about one call that must survive a crash.

Records are immutable; :mod:`voicecall.machine` makes the next record from the previous one. Times
are in milliseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec.structs import replace

__all__ = [
    "STATE_ORDER",
    "CallMode",
    "CallRecord",
    "CallState",
    "DeadlineKind",
    "Direction",
    "EndDetail",
    "EndReason",
    "Ending",
    "FirstMessage",
    "MediaPath",
    "MessageState",
    "Speaker",
    "TranscriptEntry",
    "Utterance",
]


class Direction(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"


class CallMode(StrEnum):
    NOTIFY = "notify"
    CONVERSATION = "conversation"


class MediaPath(StrEnum):
    """How the conversation is carried: by the carrier's own speech (``NATIVE``), or over a media
    socket with recogniser and voice (``STREAM``) or a voice model (``REALTIME``)."""

    NATIVE = "native"
    STREAM = "stream"
    REALTIME = "realtime"


class CallState(StrEnum):
    """The live states in their order (speaking and listening alternate), then the terminal ones."""

    INITIATED = "initiated"
    RINGING = "ringing"
    ANSWERED = "answered"
    ACTIVE = "active"
    SPEAKING = "speaking"
    LISTENING = "listening"
    COMPLETED = "completed"
    HANGUP_USER = "hangup-user"
    HANGUP_BOT = "hangup-bot"
    TIMEOUT = "timeout"
    ERROR = "error"
    FAILED = "failed"
    NO_ANSWER = "no-answer"
    BUSY = "busy"
    VOICEMAIL = "voicemail"

    @property
    def terminal(self) -> bool:
        return self in _TERMINAL


STATE_ORDER: Mapping[CallState, int] = {
    CallState.INITIATED: 0,
    CallState.RINGING: 1,
    CallState.ANSWERED: 2,
    CallState.ACTIVE: 3,
    CallState.SPEAKING: 4,
    CallState.LISTENING: 4,
}
"""Rank of each live state. A call moves to a higher rank, or between the two states of rank 4."""
_TERMINAL = frozenset(CallState) - STATE_ORDER.keys()


class EndReason(StrEnum):
    """Why a call ended; the terminal state has the same name."""

    COMPLETED = "completed"
    HANGUP_USER = "hangup-user"
    HANGUP_BOT = "hangup-bot"
    TIMEOUT = "timeout"
    ERROR = "error"
    FAILED = "failed"
    NO_ANSWER = "no-answer"
    BUSY = "busy"
    VOICEMAIL = "voicemail"

    @property
    def state(self) -> CallState:
        return CallState(self.value)


class EndDetail(StrEnum):
    """What ended the call, in more detail than the end reason."""

    REQUESTED = "requested"
    AGENT = "agent"
    NOTIFIED = "notified"
    MAX_DURATION = "max-duration"
    RING_TIMEOUT = "ring-timeout"
    REAPER = "reaper"
    POLICY = "policy"
    CAPACITY = "capacity"
    STREAM_LOST = "stream-lost"
    STREAM_NEVER_STARTED = "stream-never-started"
    MESSAGE_FAILED = "message-failed"
    SPEECH_FAILED = "speech-failed"
    AGENT_FAILED = "agent-failed"
    LISTENING_FAILED = "listening-failed"
    SILENCE = "silence"
    DIAL_FAILED = "dial-failed"
    DIAL_UNKNOWN = "dial-unknown"
    HANGUP_FAILED = "hangup-failed"
    CARRIER = "carrier"
    CARRIER_FORGOT = "carrier-forgot"
    SHUTDOWN = "shutdown"
    INTERNAL = "internal"


_REFUSALS = (EndDetail.POLICY, EndDetail.CAPACITY, EndDetail.SHUTDOWN)


class DeadlineKind(StrEnum):
    """Stored deadlines of a live call; every live call has at least one.

    - ``dial``: the dial request must have an outcome
    - ``ring``: the callee must have answered
    - ``unanswered``: an inbound call must have been answered (the reaper)
    - ``max_duration``: the duration limit
    - ``message``: the first message must have been played; otherwise it is tried again
    - ``notify_hangup``: hang up after a notification
    - ``stream``: a media socket must be attached (again)
    - ``last_words``: the last words on a call without a media socket must have been said
    - ``hangup``: the next attempt to hang up
    - ``probe``: ask the carrier for the call's status
    """

    DIAL = "dial"
    RING = "ring"
    UNANSWERED = "unanswered"
    MAX_DURATION = "max_duration"
    MESSAGE = "message"
    NOTIFY_HANGUP = "notify_hangup"
    STREAM = "stream"
    LAST_WORDS = "last_words"
    HANGUP = "hangup"
    PROBE = "probe"


class Speaker(StrEnum):
    BOT = "bot"
    USER = "user"


class TranscriptEntry(msgspec.Struct, frozen=True):
    """One final utterance. If the bot was interrupted, ``complete`` is false and ``text`` is the
    part that the caller heard."""

    at: int
    speaker: Speaker
    text: str
    complete: bool = True


class MessageState(StrEnum):
    """State of the first message. In the record of a finished call it is ``DONE``, or ``FAILED`` if
    the message was not known to have been heard to its end."""

    PENDING = "pending"
    PLAYING = "playing"
    DONE = "done"
    FAILED = "failed"


class FirstMessage(msgspec.Struct, frozen=True):
    """The greeting or notification. If the carrier speaks it because of the dial request,
    ``at_dial`` is the id of the utterance. ``attempts`` counts how often it was begun."""

    text: str
    state: MessageState = MessageState.PENDING
    attempts: int = 0
    at_dial: str | None = None


class Utterance(msgspec.Struct, frozen=True):
    """What the bot is saying right now."""

    id: str
    text: str
    first_message: bool = False


class Ending(msgspec.Struct, frozen=True):
    """We are ending the call. Hang-up requests are repeated until it is over, whatever the carrier
    answers. ``attempts`` counts the repetitions."""

    reason: EndReason
    detail: EndDetail
    requested_at: int
    attempts: int = 0


class CallRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One call. ``provider_call_id`` is the carrier's current id, ``aliases`` are all ids it ever
    had. ``stream_id`` is the attached media socket, ``lost_stream_id`` the last one that was lost,
    ``earlier_stream_ids`` are the most recent ones lost before."""

    call_id: str
    provider: str
    direction: Direction
    state: CallState
    from_number: str
    to_number: str
    started_at: int
    mode: CallMode = CallMode.CONVERSATION
    media: MediaPath = MediaPath.NATIVE
    provider_call_id: str | None = None
    aliases: tuple[str, ...] = ()
    answered_at: int | None = None
    ended_at: int | None = None
    end_reason: EndReason | None = None
    end_detail: EndDetail | None = None
    end_note: str | None = None
    session_key: str | None = None
    agent_id: str | None = None
    route_key: str | None = None
    requester_session_key: str | None = None
    dtmf_sequence: str | None = None
    message: FirstMessage | None = None
    utterance: Utterance | None = None
    ending: Ending | None = None
    listen_token: str | None = None
    stream_id: str | None = None
    lost_stream_id: str | None = None
    earlier_stream_ids: tuple[str, ...] = ()
    recovering: bool = False
    deadlines: Mapping[DeadlineKind, int] = msgspec.field(default_factory=dict)
    transcript: tuple[TranscriptEntry, ...] = ()
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def terminal(self) -> bool:
        return self.state in _TERMINAL

    @property
    def live(self) -> bool:
        return self.state not in _TERMINAL

    @property
    def refused(self) -> bool:
        """Whether this is an inbound call that was never answered, because of the policy, a
        capacity limit or a shutdown."""
        inbound = self.direction is Direction.INBOUND
        return self.end_detail in _REFUSALS and inbound and self.answered_at is None

    @property
    def remote_number(self) -> str:
        """The other party's number."""
        return self.to_number if self.direction is Direction.OUTBOUND else self.from_number

    @property
    def next_deadline(self) -> tuple[int, DeadlineKind] | None:
        """The earliest deadline, as (time, kind)."""
        deadlines = self.deadlines
        return min(zip(deadlines.values(), deadlines, strict=True)) if deadlines else None

    def with_alias(self, provider_call_id: str) -> CallRecord:
        """The record with ``provider_call_id`` as the carrier's current id."""
        if provider_call_id in self.aliases:
            return self
        return replace(
            self,
            provider_call_id=provider_call_id,
            aliases=(*self.aliases, provider_call_id),
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, without the transcript (which the store keeps as rows)."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        del data["transcript"]
        return data

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], transcript: tuple[TranscriptEntry, ...] = ()
    ) -> CallRecord:
        """The inverse of :meth:`to_dict`. For data of a newer version, unknown keys raise
        ``TypeError``, and unknown states, reasons and the like ``ValueError``."""
        values = dict(data)
        if message := values.get("message"):
            state = MessageState(message["state"])
            values["message"] = FirstMessage(**{**message, "state": state})
        if utterance := values.get("utterance"):
            values["utterance"] = Utterance(**utterance)
        if ending := values.get("ending"):
            reason, detail = EndReason(ending["reason"]), EndDetail(ending["detail"])
            values["ending"] = Ending(**{**ending, "reason": reason, "detail": detail})
        values.update(
            direction=Direction(values["direction"]),
            state=CallState(values["state"]),
            mode=CallMode(values["mode"]),
            media=MediaPath(values["media"]),
            aliases=tuple(values["aliases"]),
            earlier_stream_ids=tuple(values.get("earlier_stream_ids", ())),
            end_reason=EndReason(values["end_reason"]) if values["end_reason"] else None,
            end_detail=EndDetail(values["end_detail"]) if values["end_detail"] else None,
            deadlines={DeadlineKind(kind): at for kind, at in values["deadlines"].items()},
            transcript=transcript,
        )
        return cls(**values)
