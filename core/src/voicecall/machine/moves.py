"""Changes that several events share: of the state, towards the end, at the first sign of life."""

from __future__ import annotations

from msgspec.structs import replace

from voicecall.model import (
    STATE_ORDER,
    CallRecord,
    CallState,
    DeadlineKind,
    EndDetail,
    Ending,
    EndReason,
    FirstMessage,
    MediaPath,
    MessageState,
    Speaker,
    TranscriptEntry,
)

from .vocabulary import CallPolicy, Connected, Effect, HangUp, LookUpDial, Outcome, Release, Step

__all__ = [
    "advance",
    "begin_end",
    "close",
    "finished",
    "first_sign_of_life",
    "looking_up",
    "moved",
    "with_deadlines",
    "with_entry",
    "without_stream",
]

_REMEMBERED_STREAMS = 8
"""How many lost streams are remembered besides the last one: a carrier's reports about them are at
most a few seconds late."""


_KINDS = {kind.value: kind for kind in DeadlineKind}


def advance(state: CallState, target: CallState) -> CallState:
    """``target`` if the transition is legal, else ``state``; never raises."""
    here, there = STATE_ORDER.get(state), STATE_ORDER.get(target)
    if here is None:
        return state
    if there is None:
        return target
    return target if there >= here else state


def moved(record: CallRecord, target: CallState) -> CallRecord:
    state = advance(record.state, target)
    return record if state is record.state else replace(record, state=state)


def with_deadlines(record: CallRecord, *drop: DeadlineKind, **put: int) -> CallRecord:
    """The record without the deadlines ``drop``, and with those in ``put``, named by the kind's
    value."""
    deadlines = {kind: at for kind, at in record.deadlines.items() if kind not in drop}
    for kind, at in put.items():
        deadlines[_KINDS[kind]] = at
    return replace(record, deadlines=deadlines)


def close(
    record: CallRecord,
    at: int,
    reason: EndReason,
    detail: EndDetail | None = None,
    note: str | None = None,
) -> CallRecord:
    """The terminal record. It keeps an utterance that was under way: how much of it was heard
    becomes known a moment later."""
    began = record.answered_at if record.answered_at is not None else record.started_at
    return replace(
        record,
        message=_settled(record),
        state=reason.state,
        # The clock may have been set back while the gateway was down.
        ended_at=max(at, began),
        end_reason=reason,
        end_detail=detail,
        end_note=note,
        ending=None,
        listen_token=None,
        stream_id=None,
        recovering=False,
        deadlines={},
    )


def _settled(record: CallRecord) -> FirstMessage | None:
    """The first message of a call that is over: done or failed. If another voice said it instead,
    the call was being ended with the detail ``NOTIFIED``."""
    message, ending = record.message, record.ending
    if message is None or message.state in (MessageState.DONE, MessageState.FAILED):
        return message
    told = ending is not None and ending.detail is EndDetail.NOTIFIED
    return replace(message, state=MessageState.DONE if told else MessageState.FAILED)


def finished(
    record: CallRecord,
    at: int,
    reason: EndReason,
    detail: EndDetail,
    note: str | None = None,
) -> Step:
    return Step(close(record, at, reason, detail, note), (Release(),))


def begin_end(
    record: CallRecord, at: int, reason: EndReason, detail: EndDetail, policy: CallPolicy
) -> Step:
    if record.ending is not None:
        return Step(record, outcome=Outcome.IGNORED)
    # While the call is being dialled, wait for the outcome of that, or for this deadline.
    dialling = record.provider_call_id is None
    due = at + (policy.dial_ms if dialling else 10 * policy.hangup_retry_ms)
    ended = replace(with_deadlines(record, hangup=due), ending=Ending(reason, detail, at))
    return Step(ended, () if dialling else (HangUp(),))


def looking_up(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    """Ask the carrier whether the call exists. This has its own deadline, even on a call that is
    being ended: the record must not be closed before a call that is found can be hung up."""
    due = at + policy.dial_ms
    record = with_deadlines(record, dial=due)
    if record.ending is not None:
        record = with_deadlines(record, hangup=due)
    return Step(record, (LookUpDial(),))


def first_sign_of_life(
    record: CallRecord, at: int, policy: CallPolicy, target: CallState | None = None
) -> tuple[CallRecord, tuple[Effect, ...]]:
    """The record moved to ``target``. The first sign of life starts the clock of the call and,
    unless the call is being ended, opens the conversation."""
    target = target or record.state
    if record.answered_at is not None:
        return moved(record, target), ()
    put = {"max_duration": at + policy.max_duration_ms}
    if record.media is not MediaPath.NATIVE and record.stream_id is None:
        put["stream"] = at + policy.stream_start_ms
    record = with_deadlines(
        record, DeadlineKind.DIAL, DeadlineKind.RING, DeadlineKind.UNANSWERED, **put
    )
    answered_at = max(at, record.started_at)
    record = replace(record, state=advance(record.state, target), answered_at=answered_at)
    return record, (Connected(),) if record.ending is None else ()


def with_entry(
    record: CallRecord, at: int, speaker: Speaker, text: str, complete: bool = True
) -> CallRecord:
    at = max(at, record.transcript[-1].at if record.transcript else record.started_at)
    entry = TranscriptEntry(at, speaker, text, complete)
    return replace(record, transcript=(*record.transcript, entry))


def without_stream(record: CallRecord) -> CallRecord:
    """The record without its media socket, if it had one."""
    if record.stream_id is None:
        return record
    earlier = record.earlier_stream_ids
    if record.lost_stream_id is not None:
        earlier = (*earlier, record.lost_stream_id)[-_REMEMBERED_STREAMS:]
    return replace(
        record, stream_id=None, lost_stream_id=record.stream_id, earlier_stream_ids=earlier
    )
