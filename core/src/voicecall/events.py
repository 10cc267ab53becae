"""What can happen to a call: the inputs of :mod:`voicecall.machine`.

:class:`CarrierEvent` and its subclasses come from a carrier's webhook or media socket; adapters
make them. The others are made by the call engine. ``at`` is milliseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .model import DeadlineKind, Direction, EndDetail, EndReason

__all__ = [
    "Active",
    "Answered",
    "BotSpeaking",
    "BotSpoke",
    "CallEnded",
    "CallEvent",
    "CallFailed",
    "CallOpened",
    "CallerSaid",
    "CarrierEvent",
    "CarrierStatus",
    "DeadlineDue",
    "DialAccepted",
    "DialLookedUp",
    "DialRefused",
    "DialUncertain",
    "DigitsPressed",
    "EndRequested",
    "HangUpDone",
    "HangUpFailed",
    "Initiated",
    "ListenStarted",
    "PlaybackEnded",
    "Recovered",
    "Ringing",
    "SpeechHeard",
    "StatusReported",
    "StreamAttached",
    "StreamDetached",
    "StreamFailed",
    "StreamGivenUp",
    "StreamSwapping",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEvent:
    """Something that happened at ``at``."""

    at: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, with the class name under ``type``."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"type": type(self).__name__, **values}


# --- from carriers ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CarrierEvent(CallEvent):
    """From a carrier. ``key`` is the same for every redelivery of the same event and different
    for every other event, over all calls. ``call_id`` is ours, where the carrier echoes it."""

    key: str
    provider_call_id: str
    call_id: str | None = None
    direction: Direction | None = None
    from_number: str | None = None
    to_number: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Initiated(CarrierEvent):
    """The call exists. For an inbound call: it wants an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ringing(CarrierEvent):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(CarrierEvent):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Active(CarrierEvent):
    """Some sign that the parties are connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechHeard(CarrierEvent):
    """The carrier's own recogniser heard the caller. ``turn_token`` is that of the listen
    action which it answers, where the carrier returns it."""

    text: str
    final: bool = True
    confidence: float | None = None
    turn_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsPressed(CarrierEvent):
    digits: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaybackEnded(CarrierEvent):
    """The carrier's own voice finished (or could not finish) an utterance."""

    utterance_id: str
    ok: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFailed(CarrierEvent):
    """The carrier could not open, or lost, the media socket. ``stream_id`` is the carrier's id
    of the stream, where it tells."""

    error: str = ""
    stream_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded(CarrierEvent):
    reason: EndReason
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed(CarrierEvent):
    """The carrier reports an error. A retryable one changes nothing and uses up no key."""

    error: str
    retryable: bool = False


# --- from the engine -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOpened(CallEvent):
    """We made the record of an outbound call. It has no effect of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialAccepted(CallEvent):
    provider_call_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialRefused(CallEvent):
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialUncertain(CallEvent):
    """The dial request may have been carried out; it must be looked up."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DialLookedUp(CallEvent):
    """``provider_call_id`` is None where the carrier is sure that there is no such call."""

    provider_call_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenStarted(CallEvent):
    """We are about to ask the carrier to listen, with this token."""

    token: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerSaid(CallEvent):
    """Our own recogniser heard the caller say a whole utterance. ``context`` speech goes into
    the transcript and is no turn of its own (said into a protected greeting)."""

    text: str
    confidence: float | None = None
    context: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BotSpeaking(CallEvent):
    utterance_id: str
    text: str
    first_message: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BotSpoke(CallEvent):
    """An utterance is over. ``heard`` is what reached the caller; ``ok`` is false where it could
    not be played; ``complete`` is false where the caller interrupted."""

    utterance_id: str
    heard: str
    complete: bool = True
    ok: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamAttached(CallEvent):
    stream_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDetached(CallEvent):
    stream_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamGivenUp(CallEvent):
    """The call goes on without a media socket: by the carrier's own voice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSwapping(CallEvent):
    """We are about to let the carrier play something for ``busy_ms`` in place of the media
    socket, and open another socket behind it."""

    busy_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRequested(CallEvent):
    reason: EndReason = EndReason.HANGUP_BOT
    detail: EndDetail = EndDetail.REQUESTED


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUpDone(CallEvent):
    """The carrier hung up, or says that the call was over already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HangUpFailed(CallEvent):
    error: str


class CarrierStatus(StrEnum):
    """What a carrier says of a call when asked."""

    LIVE = "live"
    CONNECTED = "connected"
    ENDED = "ended"
    NOT_FOUND = "not-found"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReported(CallEvent):
    """The answer to a status request. ``unknown`` is never taken for an end."""

    status: CarrierStatus
    reason: EndReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlineDue(CallEvent):
    kind: DeadlineKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(CallEvent):
    """The gateway was restarted; sockets, waiters and timers of the call are gone."""
