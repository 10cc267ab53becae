"""The call state machine: a pure function from a record and an event to the next record.

``step(record, event, policy)`` has no clock, no socket and no randomness. It returns side effects
as :data:`Effect` values, which the engine carries out after the new record is committed. Rules for
every step:

* a terminal record does not change (the first end wins), except that the heard part of an utterance
  it cut off is added;
* live states only go forward, except that speaking and listening alternate;
* a live record has at least one deadline;
* a requested end always comes: hang-ups are repeated, then the record is closed anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from voicecall import events as ev
from voicecall.model import CallRecord, DeadlineKind, Direction, EndDetail, Speaker

from .dialling import (
    dial_accepted,
    dial_looked_up,
    dial_refused,
    dial_replied,
    dial_uncertain,
    opened,
)
from .due import deadline_due
from .ending import end_requested, hangup_done, hangup_failed, recovered, status_reported
from .moves import advance, close, with_entry
from .opening import open_inbound, open_outbound, refuse_inbound
from .progress import (
    active,
    answered,
    call_ended,
    call_failed,
    initiated,
    ringing,
    stream_attached,
    stream_detached,
    stream_failed,
    stream_given_up,
    stream_swapping,
)
from .talk import (
    bot_speaking,
    bot_spoke,
    caller_said,
    digits,
    listen_started,
    playback_ended,
    speech_heard,
)
from .vocabulary import (
    AnswerCall,
    CallerSpeaking,
    CallerTurn,
    CallPolicy,
    Connected,
    Dial,
    Effect,
    HangUp,
    KeysPressed,
    LookUpDial,
    Outcome,
    PlaybackFinished,
    PlayMessage,
    ProbeStatus,
    ReattachStream,
    RefuseCall,
    Release,
    Step,
    StreamMissing,
)

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
    "advance",
    "close",
    "open_inbound",
    "open_outbound",
    "refuse_inbound",
    "step",
]

_HANDLERS: Mapping[type[ev.CallEvent], Callable[[CallRecord, Any, CallPolicy], Step]] = {
    ev.Initiated: initiated,
    ev.Ringing: ringing,
    ev.Answered: answered,
    ev.Active: active,
    ev.SpeechHeard: speech_heard,
    ev.CallerSaid: caller_said,
    ev.DigitsPressed: digits,
    ev.PlaybackEnded: playback_ended,
    ev.StreamFailed: stream_failed,
    ev.StreamStopped: stream_detached,
    ev.CallEnded: call_ended,
    ev.CallFailed: call_failed,
    ev.CallOpened: opened,
    ev.DialAccepted: dial_replied,
    ev.DialRefused: dial_refused,
    ev.DialUncertain: dial_uncertain,
    ev.DialLookedUp: dial_looked_up,
    ev.ListenStarted: listen_started,
    ev.BotSpeaking: bot_speaking,
    ev.BotSpoke: bot_spoke,
    ev.StreamAttached: stream_attached,
    ev.StreamDetached: stream_detached,
    ev.StreamGivenUp: stream_given_up,
    ev.StreamSwapping: stream_swapping,
    ev.EndRequested: end_requested,
    ev.HangUpDone: hangup_done,
    ev.HangUpFailed: hangup_failed,
    ev.StatusReported: status_reported,
    ev.DeadlineDue: deadline_due,
    ev.Recovered: recovered,
}

_UNSURE = (EndDetail.DIAL_UNKNOWN, EndDetail.HANGUP_FAILED)
"""Ends after which a call may continue at its carrier."""

_NEWS = (ev.CarrierEvent, ev.StreamAttached, ev.StatusReported)
"""Events after which the carrier need not be asked about the call for a while."""


def step(record: CallRecord, event: ev.CallEvent, policy: CallPolicy) -> Step:
    """The next record and its effects. Pure; never raises for a known event."""
    if record.terminal:
        return _after_the_end(record, event)
    known = record
    before: tuple[Effect, ...] = ()
    if isinstance(event, ev.CarrierEvent) and (
        event.provider_call_id not in record.aliases or DeadlineKind.DIAL in record.deadlines
    ):
        # A webhook may arrive before the reply to the dial request, and proves the same.
        accepted = dial_accepted(record, event.at, event.provider_call_id, policy)
        record, before = accepted.record, accepted.effects
    result = _HANDLERS[type(event)](record, event, policy)
    if result.outcome is Outcome.RETRYABLE:
        return Step(known, outcome=Outcome.RETRYABLE)
    if result.outcome is Outcome.IGNORED and (before or result.record != known):
        # A new carrier id, or a deadline used up while the call is being ended, counts.
        result = replace(result, outcome=Outcome.PROCESSED)
    record = _attended(result.record, event, policy)
    if result.outcome is Outcome.PROCESSED and record is not result.record:
        result = Step(record, result.effects)
    return replace(result, effects=(*before, *result.effects)) if before else result


def _attended(record: CallRecord, event: ev.CallEvent, policy: CallPolicy) -> CallRecord:
    """Plan to ask the carrier about a call that has been quiet for a long time, and about one that
    is about to count as not answered, because the webhook that reports the answer may be lost."""
    if record.terminal or record.recovering or record.provider_call_id is None:
        return record
    news = isinstance(event, _NEWS)
    planned = record.deadlines.get(DeadlineKind.PROBE)
    at = event.at + policy.quiet_ms
    if (ring := record.deadlines.get(DeadlineKind.RING)) is not None:
        verdict = ring - policy.verdict_ms
        at = min(at, verdict) if event.at < verdict else at
    if planned == at or (planned is not None and not news):
        return record
    return replace(record, deadlines={**record.deadlines, DeadlineKind.PROBE: at})


def _after_the_end(record: CallRecord, event: ev.CallEvent) -> Step:
    """A finished call only changes when the utterance that its end cut off is over. A leg that is
    found later is hung up."""
    if isinstance(event, ev.BotSpoke):
        utterance = record.utterance
        if utterance is None or utterance.id != event.utterance_id:
            return Step(record, outcome=Outcome.IGNORED)
        record = replace(record, utterance=None)
        if event.heard.strip():
            record = with_entry(record, event.at, Speaker.BOT, event.heard, event.complete)
        return Step(record)
    if isinstance(event, ev.DialUncertain) and not record.aliases:
        # This event is late. If the dial request made a call, that is found and hung up.
        return Step(record, (LookUpDial(),))
    leg: str | None = None
    if isinstance(event, ev.DialAccepted | ev.DialLookedUp | ev.CarrierEvent):
        leg = event.provider_call_id
    if leg is not None and not isinstance(event, ev.CallEnded):
        # At every sign of life: the last hang-up may have failed, or been lost in a restart.
        lives = isinstance(event, ev.CarrierEvent) and record.end_detail in _UNSURE
        if lives or (record.direction is Direction.OUTBOUND and not record.aliases):
            return Step(record.with_alias(leg), (HangUp(),))
    return Step(record, outcome=Outcome.IGNORED)
