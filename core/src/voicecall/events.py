"""What can happen to a call: the inputs of :mod:`voicecall.machine`.

Adapters create subclasses of :class:`CarrierEvent` from a carrier's webhooks; the call engine
creates the other events. ``at`` is in milliseconds since the epoch.
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
    """An event from a carrier: always one of the subclasses. ``key`` is the same for every
    redelivery of an event, and unique among all events of all calls. ``call_id`` is our id, if the
    carrier returns it. Numbers are in E.164 form: ``+`` and the country code, even if the carrier
    omits the ``+``."""

    key: str
    provider_call_id: str
    call_id: str | None = None
    direction: Direction | None = None
    from_number: str | None = None
    to_number: str | None = None


class Initiated(CarrierEvent, frozen=True, kw_only=True):
    """The call exists. An inbound call is opened only by an event with
    ``direction=Direction.INBOUND``, and then waits to be answered."""


class Ringing(CarrierEvent, frozen=True, kw_only=True):
    """The other party's phone rings."""


class Answered(CarrierEvent, frozen=True, kw_only=True):
    """The call was answered."""


class Active(CarrierEvent, frozen=True, kw_only=True):
    """A sign that the parties are connected."""


class SpeechHeard(CarrierEvent, frozen=True, kw_only=True):
    """The carrier's own recogniser heard the caller. ``turn_token`` is the token of the ``Listen``
    action that led to this result, if the carrier returns it. ``confidence`` is 0 to 1."""

    text: str
    final: bool = True
    confidence: float | None = None
    turn_token: str | None = None


class DigitsPressed(CarrierEvent, frozen=True, kw_only=True):
    """The other party pressed keys: one or more of ``0-9 * #``. ``turn_token`` as in
    :class:`SpeechHeard`, if a ``Listen`` action led to them."""

    digits: str
    turn_token: str | None = None


class PlaybackEnded(CarrierEvent, frozen=True, kw_only=True):
    """The carrier's own voice finished an utterance, or failed to (``ok`` is false). An utterance
    that the caller or another ``Speak`` interrupted counts as finished."""

    utterance_id: str
    ok: bool = True


class StreamFailed(CarrierEvent, frozen=True, kw_only=True):
    """The carrier could not open the media socket, or lost it. ``stream_id`` is the carrier's id
    for the stream, if it reports one."""

    error: str = ""
    stream_id: str | None = None


class StreamStopped(CarrierEvent, frozen=True, kw_only=True):
    """The carrier is done with a media socket. This only has an effect if the socket is still
    attached because its connection broke unnoticed; usually the socket itself has already
    ended."""

    stream_id: str


class CallEnded(CarrierEvent, frozen=True, kw_only=True):
    """The call is over. ``detail`` is what the carrier says about the end; it is stored with the
    call."""

    reason: EndReason
    detail: str | None = None


class CallFailed(CarrierEvent, frozen=True, kw_only=True):
    """The carrier reports an error that ended the call. A retryable error changes nothing and does
    not use up its key."""

    error: str
    retryable: bool = False


# --- from the engine -------------------------------------------------------------------------


class CallOpened(CallEvent, frozen=True, kw_only=True):
    """The record of an outbound call was created. This event has no effect."""


class DialAccepted(CallEvent, frozen=True, kw_only=True):
    """The carrier accepted the dial request; ``provider_call_id`` is its id for the call."""

    provider_call_id: str


class DialRefused(CallEvent, frozen=True, kw_only=True):
    """The dial request failed, and there is certainly no call."""

    error: str


class DialUncertain(CallEvent, frozen=True, kw_only=True):
    """The dial request may or may not have been carried out; it must be looked up."""

    error: str


class DialLookedUp(CallEvent, frozen=True, kw_only=True):
    """The result of looking up a dial request. ``provider_call_id`` is None if there is certainly
    no such call."""

    provider_call_id: str | None


class ListenStarted(CallEvent, frozen=True, kw_only=True):
    """We are about to ask the carrier to listen, with this token."""

    token: str | None


class CallerSaid(CallEvent, frozen=True, kw_only=True):
    """Our own recogniser understood a whole utterance of the caller. If ``context`` is true (said
    during a protected greeting), it goes into the transcript but does not begin a turn."""

    text: str
    confidence: float | None = None
    context: bool = False


class BotSpeaking(CallEvent, frozen=True, kw_only=True):
    """An utterance begins. ``first_message``: it is the greeting or notification."""

    utterance_id: str
    text: str
    first_message: bool = False


class BotSpoke(CallEvent, frozen=True, kw_only=True):
    """An utterance is over. ``heard`` is the text that the caller heard; ``complete`` is false if
    that is not the whole text, ``ok`` is false if it could not be played to its end."""

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
    """The carrier is about to play something for ``busy_ms`` milliseconds in place of the media
    socket, and to open another socket afterwards."""

    busy_ms: int = 0


class EndRequested(CallEvent, frozen=True, kw_only=True):
    """We end the call, for this reason."""

    reason: EndReason = EndReason.HANGUP_BOT
    detail: EndDetail = EndDetail.REQUESTED


class HangUpDone(CallEvent, frozen=True, kw_only=True):
    """The carrier hung up, or reported that the call was already over."""


class HangUpFailed(CallEvent, frozen=True, kw_only=True):
    """The request to hang up failed; it will be repeated."""

    error: str


class CarrierStatus(StrEnum):
    """The state of a call as the carrier reports it. ``LIVE``: not over; ``CONNECTED``: answered
    and not over."""

    LIVE = "live"
    CONNECTED = "connected"
    ENDED = "ended"
    NOT_FOUND = "not-found"
    UNKNOWN = "unknown"


class StatusReported(CallEvent, frozen=True, kw_only=True):
    """The result of a status request. ``UNKNOWN`` never counts as an end."""

    status: CarrierStatus
    reason: EndReason | None = None


class DeadlineDue(CallEvent, frozen=True, kw_only=True):
    """A stored deadline is due."""

    kind: DeadlineKind


class Recovered(CallEvent, frozen=True, kw_only=True):
    """The gateway was restarted: sockets, waiters and timers of the call are gone."""
