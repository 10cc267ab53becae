"""Effects of a stored deadline that is due."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from voicecall import events as ev
from voicecall.model import (
    CallMode,
    CallRecord,
    CallState,
    DeadlineKind,
    EndDetail,
    EndReason,
    MessageState,
    Utterance,
)

from .moves import begin_end, finished, with_deadlines
from .talk import after_speech
from .vocabulary import CallPolicy, HangUp, Outcome, PlayMessage, ProbeStatus, Step, StreamMissing

__all__ = ["deadline_due"]

_ENDS: Mapping[DeadlineKind, tuple[EndReason, EndDetail]] = {
    DeadlineKind.RING: (EndReason.NO_ANSWER, EndDetail.RING_TIMEOUT),
    DeadlineKind.UNANSWERED: (EndReason.HANGUP_BOT, EndDetail.REAPER),
    DeadlineKind.MAX_DURATION: (EndReason.TIMEOUT, EndDetail.MAX_DURATION),
    DeadlineKind.NOTIFY_HANGUP: (EndReason.HANGUP_BOT, EndDetail.NOTIFIED),
    DeadlineKind.LAST_WORDS: (EndReason.HANGUP_BOT, EndDetail.STREAM_LOST),
}
"""The reason and detail of the end, for deadlines that only end the call."""


def deadline_due(record: CallRecord, event: ev.DeadlineDue, policy: CallPolicy) -> Step:
    due = record.deadlines.get(event.kind)
    if due is None or due > event.at:
        return Step(record, outcome=Outcome.IGNORED)
    record = with_deadlines(record, event.kind)
    if event.kind in _ENDS:
        return begin_end(record, event.at, *_ENDS[event.kind], policy)
    return _ON_DEADLINE[event.kind](record, event.at, policy)


def _dial_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    # Whether the call exists remains unknown; it is closed, never dialled again.
    return finished(record, at, EndReason.FAILED, EndDetail.DIAL_UNKNOWN)


def _message_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    message = record.message
    if message is not None and message.state is MessageState.PENDING:
        return Step(record, (PlayMessage(),) if record.ending is None else ())
    # Other speech may have replaced it, so that its own end is never reported.
    record = replace(record, utterance=Utterance("", "", first_message=True))
    return after_speech(record, at, "", False, False, policy)


def _stream_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    never = record.state in (CallState.ANSWERED, CallState.RINGING, CallState.INITIATED)
    detail = EndDetail.STREAM_NEVER_STARTED if never else EndDetail.STREAM_LOST
    due = at + policy.last_words_ms
    speaks = policy.carrier_speaks and record.answered_at is not None and record.ending is None
    message = record.message
    if speaks and record.mode is CallMode.NOTIFY and message is not None:
        speaks = message.state is not MessageState.DONE
        due += 120 * len(message.text)
    if not speaks:
        return begin_end(record, at, EndReason.HANGUP_BOT, detail, policy)
    return Step(with_deadlines(record, last_words=due), (StreamMissing(detail),))


def _hangup_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    ending = record.ending
    if ending is None:
        return Step(record)
    if record.provider_call_id is None:
        return finished(record, at, ending.reason, EndDetail.DIAL_UNKNOWN)
    if ending.attempts + 1 >= policy.hangup_attempts:
        return finished(record, at, EndReason.ERROR, EndDetail.HANGUP_FAILED)
    record = with_deadlines(record, hangup=at + 10 * policy.hangup_retry_ms)
    ending = replace(ending, attempts=ending.attempts + 1)
    return Step(replace(record, ending=ending), (HangUp(),))


def _probe_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    wait = policy.probe_ms if record.recovering else policy.quiet_ms
    return Step(with_deadlines(record, probe=at + wait), (ProbeStatus(),))


_ON_DEADLINE: Mapping[DeadlineKind, Callable[[CallRecord, int, CallPolicy], Step]] = {
    DeadlineKind.DIAL: _dial_due,
    DeadlineKind.MESSAGE: _message_due,
    DeadlineKind.STREAM: _stream_due,
    DeadlineKind.HANGUP: _hangup_due,
    DeadlineKind.PROBE: _probe_due,
}
