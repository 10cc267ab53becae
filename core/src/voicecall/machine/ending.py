"""Ending a call reliably, and recovering it after a restart."""

from __future__ import annotations

from msgspec.structs import replace

from voicecall import events as ev
from voicecall.model import (
    CallRecord,
    CallState,
    DeadlineKind,
    Direction,
    EndDetail,
    EndReason,
    MediaPath,
    MessageState,
)

from .moves import (
    begin_end,
    finished,
    first_sign_of_life,
    looking_up,
    with_deadlines,
    without_stream,
)
from .vocabulary import (
    AnswerCall,
    CallPolicy,
    Connected,
    Effect,
    HangUp,
    Outcome,
    ProbeStatus,
    Step,
)

__all__ = ["end_requested", "hangup_done", "hangup_failed", "recovered", "status_reported"]

_JUDGING = (DeadlineKind.RING, DeadlineKind.UNANSWERED, DeadlineKind.MAX_DURATION)
"""Deadlines that may end a call for the wrong reason after a restart."""


def end_requested(record: CallRecord, event: ev.EndRequested, policy: CallPolicy) -> Step:
    return begin_end(record, event.at, event.reason, event.detail, policy)


def hangup_done(record: CallRecord, event: ev.HangUpDone, policy: CallPolicy) -> Step:
    if record.ending is None:
        return Step(record, outcome=Outcome.IGNORED)
    return finished(record, event.at, record.ending.reason, record.ending.detail)


def hangup_failed(record: CallRecord, event: ev.HangUpFailed, policy: CallPolicy) -> Step:
    ending = record.ending
    if ending is None:
        return Step(record, outcome=Outcome.IGNORED)
    # The attempt is counted when the deadline of the repetition is due, as for a request without
    # an outcome.
    if ending.attempts + 1 >= policy.hangup_attempts:
        return finished(record, event.at, EndReason.ERROR, EndDetail.HANGUP_FAILED, event.error)
    wait = policy.hangup_retry_ms * 2**ending.attempts
    record = with_deadlines(record, hangup=event.at + wait)
    return Step(record, (ProbeStatus(),) if ending.attempts >= 1 else ())


def status_reported(record: CallRecord, event: ev.StatusReported, policy: CallPolicy) -> Step:
    match event.status:
        case ev.CarrierStatus.ENDED | ev.CarrierStatus.NOT_FOUND if record.ending is not None:
            return finished(record, event.at, record.ending.reason, record.ending.detail)
        case ev.CarrierStatus.ENDED:
            reason = event.reason or EndReason.COMPLETED
            return finished(record, event.at, reason, EndDetail.CARRIER)
        case ev.CarrierStatus.NOT_FOUND:
            return finished(record, event.at, EndReason.COMPLETED, EndDetail.CARRIER_FORGOT)
        case ev.CarrierStatus.UNKNOWN:
            if not record.recovering:
                return Step(record, outcome=Outcome.IGNORED)
            return Step(with_deadlines(record, probe=event.at + policy.probe_ms))
        case ev.CarrierStatus.LIVE | ev.CarrierStatus.CONNECTED:
            pass
    was_recovering = record.recovering
    record = replace(with_deadlines(record, DeadlineKind.PROBE), recovering=False)
    effects: tuple[Effect, ...] = ()
    if event.status is ev.CarrierStatus.CONNECTED:
        record, effects = first_sign_of_life(record, event.at, policy, CallState.ANSWERED)
    if record.ending is not None:
        # The call is ending: nothing is started or resumed.
        return Step(record)
    if was_recovering and not effects and record.answered_at is not None:
        if record.media is not MediaPath.NATIVE and record.stream_id is None:
            record = with_deadlines(record, stream=event.at + policy.stream_start_ms)
        effects = (Connected(resumed=True),)
    elif was_recovering and record.direction is Direction.INBOUND and record.answered_at is None:
        effects = (AnswerCall(),)
    return Step(record, effects)


def recovered(record: CallRecord, event: ev.Recovered, policy: CallPolicy) -> Step:
    message, utterance = record.message, record.utterance
    native = record.media is MediaPath.NATIVE
    if message is not None and message.state is MessageState.PLAYING and not native:
        # The line was lost in the restart: what was queued was not heard.
        message = replace(message, state=MessageState.PENDING)
    if utterance is not None and not (native and utterance.first_message):
        # The carrier may never have been asked to say it, so do not wait for its end. The first
        # message was in a reply, which is delivered again.
        utterance = None
    # If a deadline passed meanwhile, the call may have gone on, or be over: ask first.
    asked = event.at + policy.verdict_ms
    # The clock may have been set back; even then, no call may outlive its longest time.
    up = policy.dial_ms + policy.ring_timeout_ms + policy.unanswered_ms + policy.max_duration_ms
    deadlines = {
        kind: min(max(at, asked) if kind in _JUDGING else at, event.at + up)
        for kind, at in record.deadlines.items()
        if kind is not DeadlineKind.STREAM
    }
    record = replace(
        # The carrier will also report the end of the stream, which must not request another one.
        without_stream(record),
        message=message,
        utterance=utterance,
        listen_token=None,
        recovering=True,
        deadlines=deadlines,
    )
    if record.provider_call_id is None:
        return looking_up(record, event.at, policy)
    if record.ending is not None:
        return Step(record, (HangUp(),))
    return Step(record, (ProbeStatus(),))
