"""The call state machine: a pure function from a record and an event to the next record.

``step(record, event, policy)`` has no clock, no socket and no randomness. What must happen in
the world comes back as :data:`Effect` values, which the engine carries out after the new record
is committed. Rules that hold for every step:

* a terminal record stays as it is (the first end wins);
* live states only go forward, except that speaking and listening alternate;
* a live record has at least one deadline;
* an end that we ask for converges: hang-ups are repeated, then the call is closed by force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from . import events as ev
from .model import (
    STATE_ORDER,
    CallMode,
    CallRecord,
    CallState,
    DeadlineKind,
    Direction,
    EndDetail,
    Ending,
    EndReason,
    FirstMessage,
    MediaPath,
    MessageState,
    Speaker,
    TranscriptEntry,
    Utterance,
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
    "advance",
    "close",
    "open_inbound",
    "open_outbound",
    "refuse_inbound",
    "step",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """Times and limits of a call, in milliseconds unless said otherwise."""

    max_duration_ms: int = 300_000
    ring_timeout_ms: int = 30_000
    unanswered_ms: int = 120_000
    """The reaper for calls that nobody answered; 0 turns it off."""
    notify_hangup_delay_ms: int = 3_000
    stream_grace_ms: int = 2_000
    stream_start_ms: int = 10_000
    dial_ms: int = 30_000
    message_ms: int = 60_000
    """A first message may take this long, plus 120 ms for each character."""
    message_retry_ms: int = 1_000
    message_attempts: int = 2
    hangup_retry_ms: int = 1_000
    hangup_attempts: int = 5
    probe_ms: int = 5_000


# --- effects ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dial:
    """Place the call, once."""


@dataclass(frozen=True, slots=True)
class LookUpDial:
    """Ask the carrier whether a dial request of unknown outcome made a call."""


@dataclass(frozen=True, slots=True)
class AnswerCall:
    """Answer an inbound call (and attach its stream, where it has one)."""


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
    """The parties hear each other: open the conversation. ``resumed`` after a restart."""

    resumed: bool = False


@dataclass(frozen=True, slots=True)
class PlayMessage:
    """Play the first message (again)."""


@dataclass(frozen=True, slots=True)
class ReattachStream:
    """The media socket is gone; ask the carrier to open it again."""


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
    """The call is over: close its sockets, sessions, waiters and leases, tell observers."""


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
    | CallerSpeaking
    | CallerTurn
    | KeysPressed
    | PlaybackFinished
    | Release
)


class Outcome(StrEnum):
    """``processed``: the event counts and its key is used up. ``ignored``: it changes nothing,
    its key is used up. ``retryable``: it changes nothing and may be delivered again."""

    PROCESSED = "processed"
    IGNORED = "ignored"
    RETRYABLE = "retryable"


@dataclass(frozen=True, slots=True)
class Step:
    record: CallRecord
    effects: tuple[Effect, ...] = ()
    outcome: Outcome = Outcome.PROCESSED


# --- opening ---------------------------------------------------------------------------------


def open_outbound(
    *,
    call_id: str,
    provider: str,
    from_number: str,
    to_number: str,
    at: int,
    mode: CallMode,
    media: MediaPath,
    message: str | None,
    policy: CallPolicy,
    **more: Any,
) -> Step:
    """The record of a call that we are about to place, and the dialling that follows."""
    record = CallRecord(
        call_id=call_id,
        provider=provider,
        direction=Direction.OUTBOUND,
        state=CallState.INITIATED,
        from_number=from_number,
        to_number=to_number,
        started_at=at,
        mode=mode,
        media=media,
        message=FirstMessage(message) if message else None,
        deadlines={
            DeadlineKind.DIAL: at + policy.dial_ms,
            DeadlineKind.MAX_DURATION: at
            + policy.dial_ms
            + policy.ring_timeout_ms
            + policy.max_duration_ms,
        },
        **more,
    )
    return Step(record, (Dial(),))


def open_inbound(
    *,
    call_id: str,
    provider: str,
    event: ev.CarrierEvent,
    media: MediaPath,
    greeting: str | None,
    policy: CallPolicy,
    **more: Any,
) -> CallRecord:
    """The record of a call that somebody else started. Feed it ``event`` afterwards."""
    return CallRecord(
        call_id=call_id,
        provider=provider,
        direction=event.direction or Direction.INBOUND,
        state=CallState.RINGING,
        from_number=event.from_number or "unknown",
        to_number=event.to_number or "unknown",
        started_at=event.at,
        media=media,
        message=FirstMessage(greeting) if greeting else None,
        provider_call_id=event.provider_call_id,
        aliases=(event.provider_call_id,),
        deadlines={
            **(
                {DeadlineKind.UNANSWERED: event.at + policy.unanswered_ms}
                if policy.unanswered_ms
                else {}
            ),
            DeadlineKind.MAX_DURATION: event.at + policy.ring_timeout_ms + policy.max_duration_ms,
        },
        **more,
    )


def refuse_inbound(
    *, call_id: str, provider: str, event: ev.CarrierEvent, detail: EndDetail
) -> Step:
    """A terminal record of a call that is not let in."""
    record = CallRecord(
        call_id=call_id,
        provider=provider,
        direction=Direction.INBOUND,
        state=CallState.HANGUP_BOT,
        from_number=event.from_number or "unknown",
        to_number=event.to_number or "unknown",
        started_at=event.at,
        ended_at=event.at,
        end_reason=EndReason.HANGUP_BOT,
        end_detail=detail,
        provider_call_id=event.provider_call_id,
        aliases=(event.provider_call_id,),
    )
    return Step(record, (RefuseCall(detail),))


# --- helpers ---------------------------------------------------------------------------------


def advance(state: CallState, target: CallState) -> CallState:
    """``target`` where the transition is legal, else ``state``; never raises."""
    if state.terminal:
        return state
    if target.terminal:
        return target
    here, there = STATE_ORDER[state], STATE_ORDER[target]
    return target if there > here or (here == there == 4) else state


def _move(record: CallRecord, target: CallState) -> CallRecord:
    state = advance(record.state, target)
    return record if state is record.state else replace(record, state=state)


def _deadlines(record: CallRecord, *drop: DeadlineKind, **put: int) -> dict[DeadlineKind, int]:
    kept = {kind: at for kind, at in record.deadlines.items() if kind not in drop}
    kept.update((DeadlineKind(kind), at) for kind, at in put.items())
    return kept


def close(
    record: CallRecord,
    at: int,
    reason: EndReason,
    detail: EndDetail | None = None,
    note: str | None = None,
) -> CallRecord:
    """The terminal record; an utterance that was under way is kept as incomplete."""
    return replace(
        record,
        state=reason.state,
        ended_at=at,
        end_reason=reason,
        end_detail=detail,
        end_note=note,
        ending=None,
        utterance=None,
        listen_token=None,
        stream_id=None,
        recovering=False,
        deadlines={},
    )


def _finish(
    record: CallRecord,
    at: int,
    reason: EndReason,
    detail: EndDetail | None = None,
    note: str | None = None,
) -> Step:
    return Step(close(record, at, reason, detail, note), (Release(),))


def _begin_end(
    record: CallRecord, at: int, reason: EndReason, detail: EndDetail, policy: CallPolicy
) -> Step:
    if record.ending is not None:
        return Step(record, outcome=Outcome.IGNORED)
    if record.provider_call_id is None:
        # The dial is under way: its outcome, or this deadline, decides.
        ended = replace(
            record,
            ending=Ending(reason, detail, at),
            deadlines=_deadlines(record, hangup=at + policy.dial_ms),
        )
        return Step(ended)
    ended = replace(
        record,
        ending=Ending(reason, detail, at),
        deadlines=_deadlines(record, hangup=at + 10 * policy.hangup_retry_ms),
    )
    return Step(ended, (HangUp(),))


def _alive(record: CallRecord, at: int, policy: CallPolicy) -> tuple[CallRecord, list[Effect]]:
    """The first sign of life starts the clock of the call and opens the conversation."""
    if record.answered_at is not None:
        return record, []
    put = {"max_duration": at + policy.max_duration_ms}
    if record.media is not MediaPath.NATIVE and record.stream_id is None:
        put["stream"] = at + policy.stream_start_ms
    record = replace(
        record,
        answered_at=at,
        deadlines=_deadlines(
            record, DeadlineKind.DIAL, DeadlineKind.RING, DeadlineKind.UNANSWERED, **put
        ),
    )
    return record, [Connected()]


def _say(
    record: CallRecord, at: int, speaker: Speaker, text: str, complete: bool = True
) -> CallRecord:
    entry = TranscriptEntry(at, speaker, text, complete)
    return replace(record, transcript=(*record.transcript, entry))


# --- carrier events --------------------------------------------------------------------------


def _initiated(record: CallRecord, event: ev.Initiated, policy: CallPolicy) -> Step:
    if record.direction is Direction.INBOUND and record.answered_at is None:
        return Step(record, (AnswerCall(),))
    return Step(record)


def _ringing(record: CallRecord, event: ev.Ringing, policy: CallPolicy) -> Step:
    return Step(_move(record, CallState.RINGING))


def _answered(record: CallRecord, event: ev.Answered, policy: CallPolicy) -> Step:
    record, effects = _alive(record, event.at, policy)
    return Step(_move(record, CallState.ANSWERED), tuple(effects))


def _active(record: CallRecord, event: ev.Active, policy: CallPolicy) -> Step:
    record, effects = _alive(record, event.at, policy)
    return Step(_move(record, CallState.ACTIVE), tuple(effects))


def _speech_heard(record: CallRecord, event: ev.SpeechHeard, policy: CallPolicy) -> Step:
    expected = record.listen_token
    if event.turn_token and expected and event.turn_token != expected:
        return Step(record, outcome=Outcome.IGNORED)
    return _caller_speech(record, event.at, event.text, event.final, event.confidence, policy)


def _caller_said(record: CallRecord, event: ev.CallerSaid, policy: CallPolicy) -> Step:
    result = _caller_speech(record, event.at, event.text, True, event.confidence, policy)
    if event.context:
        others = tuple(e for e in result.effects if not isinstance(e, CallerTurn))
        return replace(result, effects=others)
    return result


def _caller_speech(
    record: CallRecord,
    at: int,
    text: str,
    final: bool,
    confidence: float | None,
    policy: CallPolicy,
) -> Step:
    record, effects = _alive(record, at, policy)
    if record.utterance is None:
        record = _move(record, CallState.LISTENING)
    if not text.strip():
        return Step(record, tuple(effects))
    if not final:
        return Step(record, (*effects, CallerSpeaking()))
    record = replace(_say(record, at, Speaker.USER, text.strip()), listen_token=None)
    return Step(record, (*effects, CallerTurn(text.strip(), confidence)))


def _digits(record: CallRecord, event: ev.DigitsPressed, policy: CallPolicy) -> Step:
    record, effects = _alive(record, event.at, policy)
    return Step(record, (*effects, KeysPressed(event.digits)))


def _call_ended(record: CallRecord, event: ev.CallEnded, policy: CallPolicy) -> Step:
    if record.ending is not None and event.reason is EndReason.COMPLETED:
        # "completed" says no more than that it is over; we know who ended it.
        return _finish(record, event.at, record.ending.reason, record.ending.detail, event.detail)
    return _finish(record, event.at, event.reason, EndDetail.CARRIER, event.detail)


def _call_failed(record: CallRecord, event: ev.CallFailed, policy: CallPolicy) -> Step:
    if event.retryable:
        return Step(record, outcome=Outcome.RETRYABLE)
    return _finish(record, event.at, EndReason.ERROR, EndDetail.CARRIER, event.error)


def _stream_failed(record: CallRecord, event: ev.StreamFailed, policy: CallPolicy) -> Step:
    if record.media is MediaPath.NATIVE or record.ending is not None:
        return Step(record, outcome=Outcome.IGNORED)
    return _lost_stream(record, event.at, policy)


def _playback_ended(record: CallRecord, event: ev.PlaybackEnded, policy: CallPolicy) -> Step:
    utterance = record.utterance
    if utterance is None or utterance.id != event.utterance_id:
        return Step(record, outcome=Outcome.IGNORED)
    result = _spoke(record, event.at, utterance.text, True, event.ok, policy)
    return replace(
        result, effects=(PlaybackFinished(event.utterance_id, event.ok), *result.effects)
    )


# --- our own events --------------------------------------------------------------------------


def _opened(record: CallRecord, event: ev.CallOpened, policy: CallPolicy) -> Step:
    return Step(record, outcome=Outcome.IGNORED)


def _dial_accepted(record: CallRecord, event: ev.DialAccepted, policy: CallPolicy) -> Step:
    first = record.provider_call_id is None
    record = record.with_alias(event.provider_call_id)
    if record.ending is not None:
        if not first:
            return Step(record)
        hangup = event.at + 10 * policy.hangup_retry_ms
        deadlines = _deadlines(record, DeadlineKind.DIAL, hangup=hangup)
        return Step(replace(record, deadlines=deadlines), (HangUp(),))
    # After a restart the call's fate can be asked for only now.
    effects = (ProbeStatus(),) if first and record.recovering else ()
    if record.answered_at is not None or DeadlineKind.DIAL not in record.deadlines:
        return Step(record, effects)
    ring = event.at + policy.ring_timeout_ms + 15_000
    record = replace(record, deadlines=_deadlines(record, DeadlineKind.DIAL, ring=ring))
    return Step(record, effects)


def _dial_refused(record: CallRecord, event: ev.DialRefused, policy: CallPolicy) -> Step:
    if record.provider_call_id is not None:
        return Step(record, outcome=Outcome.IGNORED)
    return _finish(record, event.at, EndReason.FAILED, EndDetail.DIAL_FAILED, event.error)


def _dial_uncertain(record: CallRecord, event: ev.DialUncertain, policy: CallPolicy) -> Step:
    if record.provider_call_id is not None:
        return Step(record, outcome=Outcome.IGNORED)
    return Step(record, (LookUpDial(),))


def _dial_looked_up(record: CallRecord, event: ev.DialLookedUp, policy: CallPolicy) -> Step:
    if record.provider_call_id is not None:
        return Step(record, outcome=Outcome.IGNORED)
    if event.provider_call_id is None:
        return _finish(record, event.at, EndReason.FAILED, EndDetail.DIAL_UNKNOWN)
    found = _dial_accepted(
        record, ev.DialAccepted(at=event.at, provider_call_id=event.provider_call_id), policy
    )
    return replace(found, effects=found.effects or (ProbeStatus(),))


def _listen_started(record: CallRecord, event: ev.ListenStarted, policy: CallPolicy) -> Step:
    return Step(replace(_move(record, CallState.LISTENING), listen_token=event.token))


def _bot_speaking(record: CallRecord, event: ev.BotSpeaking, policy: CallPolicy) -> Step:
    message = record.message
    if event.first_message and (message is None or message.state is not MessageState.PENDING):
        return Step(record, outcome=Outcome.IGNORED)
    record = replace(
        _move(record, CallState.SPEAKING),
        utterance=Utterance(event.utterance_id, event.text, event.first_message),
    )
    if event.first_message and message is not None:
        due = event.at + policy.message_ms + 120 * len(event.text)
        record = replace(
            record,
            message=replace(message, state=MessageState.PLAYING, attempts=message.attempts + 1),
            deadlines=_deadlines(record, message=due),
        )
    return Step(record)


def _bot_spoke(record: CallRecord, event: ev.BotSpoke, policy: CallPolicy) -> Step:
    utterance = record.utterance
    if utterance is None or utterance.id != event.utterance_id:
        return Step(record, outcome=Outcome.IGNORED)
    return _spoke(record, event.at, event.heard, event.complete, event.ok, policy)


def _spoke(
    record: CallRecord, at: int, heard: str, complete: bool, ok: bool, policy: CallPolicy
) -> Step:
    utterance = record.utterance
    record = replace(_move(record, CallState.LISTENING), utterance=None)
    if ok and heard.strip():
        record = _say(record, at, Speaker.BOT, heard, complete)
    message = record.message
    if utterance is None or not utterance.first_message or message is None:
        return Step(record)
    if ok:
        done = replace(message, state=MessageState.DONE)
        put = {}
        if record.mode is CallMode.NOTIFY:
            put["notify_hangup"] = at + policy.notify_hangup_delay_ms
        deadlines = _deadlines(record, DeadlineKind.MESSAGE, **put)
        return Step(replace(record, message=done, deadlines=deadlines))
    if message.attempts < policy.message_attempts:
        again = replace(message, state=MessageState.PENDING)
        deadlines = _deadlines(record, message=at + policy.message_retry_ms)
        return Step(replace(record, message=again, deadlines=deadlines))
    failed = replace(
        record,
        message=replace(message, state=MessageState.FAILED),
        deadlines=_deadlines(record, DeadlineKind.MESSAGE),
    )
    return _begin_end(failed, at, EndReason.ERROR, EndDetail.MESSAGE_FAILED, policy)


def _stream_attached(record: CallRecord, event: ev.StreamAttached, policy: CallPolicy) -> Step:
    record = replace(
        record,
        stream_id=event.stream_id,
        deadlines=_deadlines(record, DeadlineKind.STREAM),
    )
    record, effects = _alive(record, event.at, policy)
    return Step(_move(record, CallState.ACTIVE), tuple(effects))


def _stream_detached(record: CallRecord, event: ev.StreamDetached, policy: CallPolicy) -> Step:
    if record.stream_id != event.stream_id:
        return Step(record, outcome=Outcome.IGNORED)
    return _lost_stream(record, event.at, policy)


def _lost_stream(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    record = replace(record, stream_id=None)
    if record.ending is not None:
        return Step(record)
    deadline = record.deadlines.get(DeadlineKind.STREAM, at + policy.stream_grace_ms)
    record = replace(record, deadlines=_deadlines(record, stream=deadline))
    return Step(record, (ReattachStream(),))


def _end_requested(record: CallRecord, event: ev.EndRequested, policy: CallPolicy) -> Step:
    return _begin_end(record, event.at, event.reason, event.detail, policy)


def _hangup_done(record: CallRecord, event: ev.HangUpDone, policy: CallPolicy) -> Step:
    if record.ending is None:
        return Step(record, outcome=Outcome.IGNORED)
    return _finish(record, event.at, record.ending.reason, record.ending.detail)


def _hangup_failed(record: CallRecord, event: ev.HangUpFailed, policy: CallPolicy) -> Step:
    ending = record.ending
    if ending is None:
        return Step(record, outcome=Outcome.IGNORED)
    # The repetition counts, when its deadline comes; a request without an outcome does so too.
    if ending.attempts + 1 >= policy.hangup_attempts:
        return _finish(record, event.at, EndReason.ERROR, EndDetail.HANGUP_FAILED, event.error)
    wait = policy.hangup_retry_ms * 2**ending.attempts
    record = replace(record, deadlines=_deadlines(record, hangup=event.at + wait))
    return Step(record, (ProbeStatus(),) if ending.attempts >= 1 else ())


def _status_reported(record: CallRecord, event: ev.StatusReported, policy: CallPolicy) -> Step:
    match event.status:
        case ev.CarrierStatus.ENDED:
            if record.ending is not None:
                return _finish(record, event.at, record.ending.reason, record.ending.detail)
            reason = event.reason or EndReason.COMPLETED
            return _finish(record, event.at, reason, EndDetail.CARRIER)
        case ev.CarrierStatus.NOT_FOUND:
            return _finish(record, event.at, EndReason.COMPLETED, EndDetail.CARRIER_FORGOT)
        case ev.CarrierStatus.UNKNOWN:
            if not record.recovering:
                return Step(record, outcome=Outcome.IGNORED)
            retry = _deadlines(record, probe=event.at + policy.probe_ms)
            return Step(replace(record, deadlines=retry))
        case ev.CarrierStatus.LIVE | ev.CarrierStatus.CONNECTED:
            pass
    was_recovering = record.recovering
    record = replace(record, recovering=False, deadlines=_deadlines(record, DeadlineKind.PROBE))
    effects: list[Effect] = []
    if event.status is ev.CarrierStatus.CONNECTED:
        record, effects = _alive(record, event.at, policy)
        record = _move(record, CallState.ANSWERED)
    if was_recovering and not effects and record.answered_at is not None:
        if record.media is not MediaPath.NATIVE and record.stream_id is None:
            put = {"stream": event.at + policy.stream_start_ms}
            record = replace(record, deadlines=_deadlines(record, **put))
        effects = [Connected(resumed=True)]
    elif was_recovering and record.direction is Direction.INBOUND and record.answered_at is None:
        effects = [AnswerCall()]
    return Step(record, tuple(effects))


def _recovered(record: CallRecord, event: ev.Recovered, policy: CallPolicy) -> Step:
    message, utterance = record.message, record.utterance
    native = record.media is MediaPath.NATIVE
    if message is not None and message.state is MessageState.PLAYING and not native:
        # The line died with us: what was queued was not heard.
        message = replace(message, state=MessageState.PENDING)
    if utterance is not None and not (native and utterance.first_message):
        # Whether the carrier was asked to say it at all is unknown: nobody may wait for its end.
        # The first message was in a reply, which is delivered again.
        utterance = None
    record = replace(
        record,
        message=message,
        utterance=utterance,
        listen_token=None,
        stream_id=None,
        recovering=True,
        deadlines=_deadlines(record, DeadlineKind.STREAM),
    )
    if record.provider_call_id is None:
        waiting = _deadlines(record, dial=event.at + policy.dial_ms)
        return Step(replace(record, deadlines=waiting), (LookUpDial(),))
    if record.ending is not None:
        return Step(record, (HangUp(),))
    return Step(record, (ProbeStatus(),))


def _deadline_due(record: CallRecord, event: ev.DeadlineDue, policy: CallPolicy) -> Step:
    due = record.deadlines.get(event.kind)
    if due is None or due > event.at:
        return Step(record, outcome=Outcome.IGNORED)
    return _ON_DEADLINE[event.kind](record, event.at, policy)


def _dial_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    # Whether the call exists is unknown and stays so; it is closed, never dialled again.
    return _finish(record, at, EndReason.FAILED, EndDetail.DIAL_UNKNOWN)


def _ring_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    record = replace(record, deadlines=_deadlines(record, DeadlineKind.RING))
    return _begin_end(record, at, EndReason.NO_ANSWER, EndDetail.RING_TIMEOUT, policy)


def _unanswered_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    record = replace(record, deadlines=_deadlines(record, DeadlineKind.UNANSWERED))
    return _begin_end(record, at, EndReason.HANGUP_BOT, EndDetail.REAPER, policy)


def _max_duration_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    if record.ending is not None:
        # The hang-up has its own deadline, which is armed.
        rest = _deadlines(record, DeadlineKind.MAX_DURATION)
        return Step(replace(record, deadlines=rest))
    step_ = _begin_end(record, at, EndReason.TIMEOUT, EndDetail.MAX_DURATION, policy)
    rest = _deadlines(step_.record, DeadlineKind.MAX_DURATION)
    return replace(step_, record=replace(step_.record, deadlines=rest))


def _message_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    message = record.message
    if message is not None and message.state is MessageState.PENDING:
        rest = _deadlines(record, DeadlineKind.MESSAGE)
        return Step(replace(record, deadlines=rest), (PlayMessage(),))
    # Other speech may have taken its place: its own end will never be told.
    record = replace(record, utterance=Utterance("", "", first_message=True))
    return _spoke(record, at, "", False, False, policy)


def _notify_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    record = replace(record, deadlines=_deadlines(record, DeadlineKind.NOTIFY_HANGUP))
    return _begin_end(record, at, EndReason.HANGUP_BOT, EndDetail.NOTIFIED, policy)


def _stream_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    never = record.state in (CallState.ANSWERED, CallState.RINGING, CallState.INITIATED)
    detail = EndDetail.STREAM_NEVER_STARTED if never else EndDetail.STREAM_LOST
    record = replace(record, deadlines=_deadlines(record, DeadlineKind.STREAM))
    return _begin_end(record, at, EndReason.HANGUP_BOT, detail, policy)


def _hangup_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    ending = record.ending
    if ending is None:
        rest = _deadlines(record, DeadlineKind.HANGUP)
        return Step(replace(record, deadlines=rest))
    if record.provider_call_id is None:
        return _finish(record, at, ending.reason, EndDetail.DIAL_UNKNOWN)
    if ending.attempts + 1 >= policy.hangup_attempts:
        return _finish(record, at, EndReason.ERROR, EndDetail.HANGUP_FAILED)
    record = replace(
        record,
        ending=replace(ending, attempts=ending.attempts + 1),
        deadlines=_deadlines(record, hangup=at + 10 * policy.hangup_retry_ms),
    )
    return Step(record, (HangUp(),))


def _probe_due(record: CallRecord, at: int, policy: CallPolicy) -> Step:
    rest = _deadlines(record, probe=at + policy.probe_ms)
    return Step(replace(record, deadlines=rest), (ProbeStatus(),))


_ON_DEADLINE: Mapping[DeadlineKind, Callable[[CallRecord, int, CallPolicy], Step]] = {
    DeadlineKind.DIAL: _dial_due,
    DeadlineKind.RING: _ring_due,
    DeadlineKind.UNANSWERED: _unanswered_due,
    DeadlineKind.MAX_DURATION: _max_duration_due,
    DeadlineKind.MESSAGE: _message_due,
    DeadlineKind.NOTIFY_HANGUP: _notify_due,
    DeadlineKind.STREAM: _stream_due,
    DeadlineKind.HANGUP: _hangup_due,
    DeadlineKind.PROBE: _probe_due,
}

_HANDLERS: Mapping[type[ev.CallEvent], Callable[[CallRecord, Any, CallPolicy], Step]] = {
    ev.Initiated: _initiated,
    ev.Ringing: _ringing,
    ev.Answered: _answered,
    ev.Active: _active,
    ev.SpeechHeard: _speech_heard,
    ev.CallerSaid: _caller_said,
    ev.DigitsPressed: _digits,
    ev.PlaybackEnded: _playback_ended,
    ev.StreamFailed: _stream_failed,
    ev.CallEnded: _call_ended,
    ev.CallFailed: _call_failed,
    ev.CallOpened: _opened,
    ev.DialAccepted: _dial_accepted,
    ev.DialRefused: _dial_refused,
    ev.DialUncertain: _dial_uncertain,
    ev.DialLookedUp: _dial_looked_up,
    ev.ListenStarted: _listen_started,
    ev.BotSpeaking: _bot_speaking,
    ev.BotSpoke: _bot_spoke,
    ev.StreamAttached: _stream_attached,
    ev.StreamDetached: _stream_detached,
    ev.EndRequested: _end_requested,
    ev.HangUpDone: _hangup_done,
    ev.HangUpFailed: _hangup_failed,
    ev.StatusReported: _status_reported,
    ev.DeadlineDue: _deadline_due,
    ev.Recovered: _recovered,
}


def step(record: CallRecord, event: ev.CallEvent, policy: CallPolicy) -> Step:
    """The next record and what must be done about it. Pure; never raises for a known event."""
    if record.terminal:
        return _after_the_end(record, event)
    known = record
    before: tuple[Effect, ...] = ()
    if isinstance(event, ev.CarrierEvent):
        # A webhook may be faster than the reply to the dial request; it proves as much.
        accepted = _dial_accepted(
            record, ev.DialAccepted(at=event.at, provider_call_id=event.provider_call_id), policy
        )
        record, before = accepted.record, accepted.effects
    result = _HANDLERS[type(event)](record, event, policy)
    if result.outcome is Outcome.RETRYABLE:
        return Step(known, outcome=Outcome.RETRYABLE)
    if result.outcome is Outcome.IGNORED and (before or result.record != known):
        # A new carrier id, or a deadline used up while the call is being ended, does count.
        result = replace(result, outcome=Outcome.PROCESSED)
    return replace(result, effects=(*before, *result.effects)) if before else result


def _after_the_end(record: CallRecord, event: ev.CallEvent) -> Step:
    """Nothing changes a finished call, but a leg that turns up late must not stay open."""
    if isinstance(event, ev.DialAccepted | ev.CarrierEvent) and not isinstance(event, ev.CallEnded):
        # Again with every sign of life: the last hang-up may have died with us.
        lives = isinstance(event, ev.CarrierEvent) and record.end_detail is EndDetail.DIAL_UNKNOWN
        if record.direction is Direction.OUTBOUND and (lives or not record.aliases):
            return Step(record.with_alias(event.provider_call_id), (HangUp(),))
    return Step(record, outcome=Outcome.IGNORED)
