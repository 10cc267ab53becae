"""A carrier's reports about a call, and its media socket."""

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
)

from .moves import finished, first_sign_of_life, moved, with_deadlines, without_stream
from .vocabulary import AnswerCall, CallPolicy, Outcome, ReattachStream, Step

__all__ = [
    "active",
    "answered",
    "call_ended",
    "call_failed",
    "initiated",
    "ringing",
    "stream_attached",
    "stream_detached",
    "stream_failed",
    "stream_given_up",
    "stream_swapping",
]


def initiated(record: CallRecord, event: ev.Initiated, policy: CallPolicy) -> Step:
    waits = record.answered_at is None and record.ending is None
    if record.direction is Direction.INBOUND and waits:
        return Step(record, (AnswerCall(),))
    return Step(record)


def ringing(record: CallRecord, event: ev.Ringing, policy: CallPolicy) -> Step:
    return Step(moved(record, CallState.RINGING))


def answered(record: CallRecord, event: ev.Answered, policy: CallPolicy) -> Step:
    return Step(*first_sign_of_life(record, event.at, policy, CallState.ANSWERED))


def active(record: CallRecord, event: ev.Active, policy: CallPolicy) -> Step:
    return Step(*first_sign_of_life(record, event.at, policy, CallState.ACTIVE))


def call_ended(record: CallRecord, event: ev.CallEnded, policy: CallPolicy) -> Step:
    if record.ending is not None and event.reason in (EndReason.COMPLETED, EndReason.HANGUP_BOT):
        # The carrier only knows that the call is over, or that we ended it; we know why.
        return finished(record, event.at, record.ending.reason, record.ending.detail, event.detail)
    return finished(record, event.at, event.reason, EndDetail.CARRIER, event.detail)


def call_failed(record: CallRecord, event: ev.CallFailed, policy: CallPolicy) -> Step:
    if event.retryable:
        return Step(record, outcome=Outcome.RETRYABLE)
    return finished(record, event.at, EndReason.ERROR, EndDetail.CARRIER, event.error)


def stream_failed(record: CallRecord, event: ev.StreamFailed, policy: CallPolicy) -> Step:
    if record.media is MediaPath.NATIVE or record.ending is not None:
        return Step(record, outcome=Outcome.IGNORED)
    known = event.stream_id is not None and (
        event.stream_id == record.lost_stream_id
        or event.stream_id in record.earlier_stream_ids
        or (record.stream_id is not None and event.stream_id != record.stream_id)
    )
    if known:
        # We have noticed the loss before, and another stream exists or is on its way.
        return Step(record, outcome=Outcome.IGNORED)
    return lost_stream(record, event.at, policy)


def stream_attached(record: CallRecord, event: ev.StreamAttached, policy: CallPolicy) -> Step:
    record = with_deadlines(record, DeadlineKind.STREAM, DeadlineKind.LAST_WORDS)
    record = replace(record, stream_id=event.stream_id)
    return Step(*first_sign_of_life(record, event.at, policy, CallState.ACTIVE))


def stream_detached(
    record: CallRecord, event: ev.StreamDetached | ev.StreamStopped, policy: CallPolicy
) -> Step:
    if record.stream_id != event.stream_id:
        return Step(record, outcome=Outcome.IGNORED)
    return lost_stream(record, event.at, policy)


def stream_given_up(record: CallRecord, event: ev.StreamGivenUp, policy: CallPolicy) -> Step:
    if record.media is MediaPath.NATIVE:
        return Step(record, outcome=Outcome.IGNORED)
    record = with_deadlines(without_stream(record), DeadlineKind.STREAM)
    return Step(replace(record, media=MediaPath.NATIVE))


def stream_swapping(record: CallRecord, event: ev.StreamSwapping, policy: CallPolicy) -> Step:
    if record.stream_id is None or record.ending is not None:
        # There is no stream to give up, or the call is ending.
        return Step(record, outcome=Outcome.IGNORED)
    due = event.at + event.busy_ms + policy.stream_start_ms
    return Step(with_deadlines(without_stream(record), stream=due))


def lost_stream(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    record = without_stream(record)
    if record.ending is not None or record.media is MediaPath.NATIVE:
        return Step(record)
    deadline = record.deadlines.get(DeadlineKind.STREAM, at + policy.stream_grace_ms)
    return Step(with_deadlines(record, stream=deadline), (ReattachStream(),))
