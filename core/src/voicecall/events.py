"""What can happen to a call: the inputs of :mod:`voicecall.machine`.

Adapters make the subclasses of :class:`CarrierEvent` from a carrier's webhooks; the call engine
makes the other events. ``at`` is milliseconds since the epoch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

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
    "StreamStopped",
    "StreamSwapping",
]


class CallEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at ``at``."""

    at: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, with the class name under ``type``."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {"type": type(self).__name__, **values}


# --- from carriers ---------------------------------------------------------------------------


class CarrierEvent(CallEvent, frozen=True, kw_only=True):
    """From a carrier; what arrives is one of the subclasses. ``key`` is the same for every
    redelivery of an event, and different for every other event of any call. ``call_id`` is ours, if
    the carrier returns it. Numbers begin with ``+`` and their country, also where the carrier
    leaves the ``+`` out."""

    key: str
    provider_call_id: str
    call_id: str | None = None
    direction: Direction | None = None
    from_number: str | None = None
    to_number: str | None = None


class Initiated(CarrierEvent, frozen=True, kw_only=True):
    """The call exists. An inbound call waits for an answer; it is opened only by an event with
    ``direction=Direction.INBOUND``."""


class Ringing(CarrierEvent, frozen=True, kw_only=True):
    """The other party's phone rings."""


class Answered(CarrierEvent, frozen=True, kw_only=True):
    """The call was answered."""


class Active(CarrierEvent, frozen=True, kw_only=True):
    """A sign that the parties are connected."""


class SpeechHeard(CarrierEvent, frozen=True, kw_only=True):
    """The carrier's own recogniser heard the caller. ``turn_token`` is that of the listen action
    which this answers, if the carrier returns it."""

    text: str
    final: bool = True
    confidence: float | None = None
    turn_token: str | None = None


class DigitsPressed(CarrierEvent, frozen=True, kw_only=True):
    """The other party pressed these keys, one or several of ``0-9 * #``."""

    digits: str


class PlaybackEnded(CarrierEvent, frozen=True, kw_only=True):
    """The carrier's own voice finished an utterance, or could not (``ok`` is false). One that the
    caller or another ``Speak`` interrupted is finished."""

    utterance_id: str
    ok: bool = True


class StreamFailed(CarrierEvent, frozen=True, kw_only=True):
    """The carrier could not open the media socket, or lost it. ``stream_id`` is the carrier's id of
    the stream, if it reports one."""

    error: str = ""
    stream_id: str | None = None


class StreamStopped(CarrierEvent, frozen=True, kw_only=True):
    """The carrier is done with a media socket. It matters only if that socket is still attached:
    usually the socket itself has ended, unless its connection broke unnoticed."""

    stream_id: str


class CallEnded(CarrierEvent, frozen=True, kw_only=True):
    """The call is over. ``detail`` is what the carrier says about it; it is kept with the call."""

    reason: EndReason
    detail: str | None = None


class CallFailed(CarrierEvent, frozen=True, kw_only=True):
    """The carrier reports an error that ended the call. A retryable one changes nothing and does
    not use up its key."""

    error: str
    retryable: bool = False


# --- from the engine -------------------------------------------------------------------------


class CallOpened(CallEvent, frozen=True, kw_only=True):
    """We made the record of an outbound call. It has no effect of its own."""


class DialAccepted(CallEvent, frozen=True, kw_only=True):
    """The carrier places the call, under this id."""

    provider_call_id: str


class DialRefused(CallEvent, frozen=True, kw_only=True):
    """The dial request failed, and there is certainly no call."""

    error: str


class DialUncertain(CallEvent, frozen=True, kw_only=True):
    """The dial request may have been carried out; it must be looked up."""

    error: str


class DialLookedUp(CallEvent, frozen=True, kw_only=True):
    """``provider_call_id`` is None if the carrier is sure that there is no such call."""

    provider_call_id: str | None


class ListenStarted(CallEvent, frozen=True, kw_only=True):
    """We are about to ask the carrier to listen, with this token."""

    token: str | None


class CallerSaid(CallEvent, frozen=True, kw_only=True):
    """Our own recogniser understood a whole utterance of the caller. With ``context`` (said during
    a protected greeting) it goes into the transcript, but is not a turn."""

    text: str
    confidence: float | None = None
    context: bool = False


class BotSpeaking(CallEvent, frozen=True, kw_only=True):
    """An utterance begins; ``first_message``: it is the greeting or notification."""

    utterance_id: str
    text: str
    first_message: bool = False


class BotSpoke(CallEvent, frozen=True, kw_only=True):
    """An utterance is over. ``heard`` is the text that reached the caller; ``complete`` is false if
    that is not all of it, ``ok`` is false if it could not be played, or not to its end."""

    utterance_id: str
    heard: str
    complete: bool = True
    ok: bool = True


class StreamAttached(CallEvent, frozen=True, kw_only=True):
    """A media socket of the call was admitted."""

    stream_id: str


class StreamDetached(CallEvent, frozen=True, kw_only=True):
    """A media socket of the call is gone."""

    stream_id: str


class StreamGivenUp(CallEvent, frozen=True, kw_only=True):
    """The call goes on without a media socket, with the carrier's own voice."""


class StreamSwapping(CallEvent, frozen=True, kw_only=True):
    """The carrier is about to play something for ``busy_ms`` in place of the media socket, and to
    open another socket after it."""

    busy_ms: int = 0


class EndRequested(CallEvent, frozen=True, kw_only=True):
    """We want to end the call, for this reason."""

    reason: EndReason = EndReason.HANGUP_BOT
    detail: EndDetail = EndDetail.REQUESTED


class HangUpDone(CallEvent, frozen=True, kw_only=True):
    """The carrier hung up, or says that the call was over already."""


class HangUpFailed(CallEvent, frozen=True, kw_only=True):
    """The request to hang up failed; it is repeated."""

    error: str


class CarrierStatus(StrEnum):
    """What a carrier says of a call when asked. ``LIVE``: not over; ``CONNECTED``: answered."""

    LIVE = "live"
    CONNECTED = "connected"
    ENDED = "ended"
    NOT_FOUND = "not-found"
    UNKNOWN = "unknown"


class StatusReported(CallEvent, frozen=True, kw_only=True):
    """The answer to a status request. ``UNKNOWN`` never counts as an end."""

    status: CarrierStatus
    reason: EndReason | None = None


class DeadlineDue(CallEvent, frozen=True, kw_only=True):
    """The time of a stored deadline has come."""

    kind: DeadlineKind


class Recovered(CallEvent, frozen=True, kw_only=True):
    """The gateway was restarted: sockets, waiters and timers of the call are gone."""
