"""The vocabulary of the state machine: its policy, effects and outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from voicecall.model import CallRecord, EndDetail

__all__ = [
    "AnswerCall",
    "CallPolicy",
    "CallerSpeaking",
    "CallerTurn",
    "Connected",
    "Dial",
    "Effect",
    "HangUp",
    "KeysPressed",
    "LookUpDial",
    "Outcome",
    "PlayMessage",
    "PlaybackFinished",
    "ProbeStatus",
    "ReattachStream",
    "RefuseCall",
    "Release",
    "Step",
    "StreamMissing",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """Times and limits of a call, in milliseconds unless said otherwise."""

    max_duration_ms: int = 300_000
    ring_timeout_ms: int = 30_000
    unanswered_ms: int = 120_000
    """The reaper ends inbound calls that are not answered within this time; 0: never."""
    notify_hangup_delay_ms: int = 3_000
    stream_grace_ms: int = 2_000
    stream_start_ms: int = 10_000
    carrier_speaks: bool = False
    """Whether the carrier has its own voice, for a call whose media socket is missing."""
    last_words_ms: int = 60_000
    """The carrier's voice may take this long for the last words, plus 120 ms for each character of
    a notification."""
    dial_ms: int = 30_000
    message_ms: int = 60_000
    """A first message may take this long, plus 120 ms for each character."""
    message_retry_ms: int = 1_000
    message_attempts: int = 2
    hangup_retry_ms: int = 1_000
    hangup_attempts: int = 5
    probe_ms: int = 5_000
    """While recovering: how long until the carrier is asked again."""
    verdict_ms: int = 2_000
    """After a restart, the carrier has this long to report the state of a call before a deadline
    that passed meanwhile decides."""
    quiet_ms: int = 60_000
    """The carrier is asked about a call if it reported nothing for this long: webhooks get lost."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Place the call, once."""


@dataclass(frozen=True, slots=True)
class LookUpDial:
    """Ask the carrier whether a dial request of unknown outcome made a call."""


@dataclass(frozen=True, slots=True)
class AnswerCall:
    """Answer an inbound call (and attach its stream, if it has one)."""


@dataclass(frozen=True, slots=True)
class RefuseCall:
    detail: EndDetail


@dataclass(frozen=True, slots=True)
class HangUp:
    pass


@dataclass(frozen=True, slots=True)
class ProbeStatus:
    pass


@dataclass(frozen=True, slots=True)
class Connected:
    """The parties hear each other: open the conversation. ``resumed``: after a restart."""

    resumed: bool = False


@dataclass(frozen=True, slots=True)
class PlayMessage:
    """Play the first message (again)."""


@dataclass(frozen=True, slots=True)
class ReattachStream:
    """The media socket is gone; ask the carrier to open it again."""


@dataclass(frozen=True, slots=True)
class StreamMissing:
    """No media socket came in time: say what can be said without one, then end the call."""

    detail: EndDetail


@dataclass(frozen=True, slots=True)
class CallerSpeaking:
    pass


@dataclass(frozen=True, slots=True)
class CallerTurn:
    text: str
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class KeysPressed:
    digits: str


@dataclass(frozen=True, slots=True)
class PlaybackFinished:
    """The carrier's own voice is done with an utterance."""

    utterance_id: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Release:
    """The call is over: close its sockets, sessions, waiters and leases, and call the observers."""


Effect = (
    Dial
    | LookUpDial
    | AnswerCall
    | RefuseCall
    | HangUp
    | ProbeStatus
    | Connected
    | PlayMessage
    | ReattachStream
    | StreamMissing
    | CallerSpeaking
    | CallerTurn
    | KeysPressed
    | PlaybackFinished
    | Release
)


class Outcome(StrEnum):
    """``processed``: the event counts and its key is used up. ``ignored``: it changes nothing, but
    its key is used up. ``retryable``: it changes nothing and may be delivered again."""

    PROCESSED = "processed"
    IGNORED = "ignored"
    RETRYABLE = "retryable"


class Step(msgspec.Struct, frozen=True):
    record: CallRecord
    effects: tuple[Effect, ...] = ()
    outcome: Outcome = Outcome.PROCESSED
