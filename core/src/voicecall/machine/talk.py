"""Speaking and listening."""

from __future__ import annotations

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
    Speaker,
    Utterance,
)

from .moves import begin_end, first_sign_of_life, moved, with_deadlines, with_entry
from .vocabulary import (
    CallerSpeaking,
    CallerTurn,
    CallPolicy,
    KeysPressed,
    Outcome,
    PlaybackFinished,
    Step,
)

__all__ = [
    "after_speech",
    "bot_speaking",
    "bot_spoke",
    "caller_said",
    "digits",
    "listen_started",
    "playback_ended",
    "speech_heard",
]


def listen_started(record: CallRecord, event: ev.ListenStarted, policy: CallPolicy) -> Step:
    return Step(replace(moved(record, CallState.LISTENING), listen_token=event.token))


def bot_speaking(record: CallRecord, event: ev.BotSpeaking, policy: CallPolicy) -> Step:
    message = record.message
    if event.first_message and (message is None or message.state is not MessageState.PENDING):
        return Step(record, outcome=Outcome.IGNORED)
    record = replace(
        moved(record, CallState.SPEAKING),
        utterance=Utterance(event.utterance_id, event.text, event.first_message),
    )
    if event.first_message and message is not None:
        due = event.at + policy.message_ms + 120 * len(event.text)
        message = replace(message, state=MessageState.PLAYING, attempts=message.attempts + 1)
        record = replace(with_deadlines(record, message=due), message=message)
    return Step(record)


def bot_spoke(record: CallRecord, event: ev.BotSpoke, policy: CallPolicy) -> Step:
    utterance = record.utterance
    if utterance is None or utterance.id != event.utterance_id:
        return Step(record, outcome=Outcome.IGNORED)
    return after_speech(record, event.at, event.heard, event.complete, event.ok, policy)


def after_speech(
    record: CallRecord, at: int, heard: str, complete: bool, ok: bool, policy: CallPolicy
) -> Step:
    utterance = record.utterance
    record = replace(moved(record, CallState.LISTENING), utterance=None)
    if heard.strip():
        # Even if the voice failed in the middle.
        record = with_entry(record, at, Speaker.BOT, heard, complete)
    message = record.message
    if utterance is None or not utterance.first_message or message is None:
        return Step(record)
    notify = record.mode is CallMode.NOTIFY
    # An incomplete greeting was interrupted; an incomplete notification is said again.
    if ok and (complete or not notify or message.attempts >= policy.message_attempts):
        put = {}
        if notify:
            put["notify_hangup"] = at + policy.notify_hangup_delay_ms
        record = with_deadlines(record, DeadlineKind.MESSAGE, **put)
        return Step(replace(record, message=replace(message, state=MessageState.DONE)))
    if message.attempts < policy.message_attempts:
        record = with_deadlines(record, message=at + policy.message_retry_ms)
        return Step(replace(record, message=replace(message, state=MessageState.PENDING)))
    record = with_deadlines(record, DeadlineKind.MESSAGE)
    record = replace(record, message=replace(message, state=MessageState.FAILED))
    return begin_end(record, at, EndReason.ERROR, EndDetail.MESSAGE_FAILED, policy)


def playback_ended(record: CallRecord, event: ev.PlaybackEnded, policy: CallPolicy) -> Step:
    utterance = record.utterance
    if utterance is None or utterance.id != event.utterance_id:
        return Step(record, outcome=Outcome.IGNORED)
    heard = utterance.text if event.ok else ""
    result = after_speech(record, event.at, heard, True, event.ok, policy)
    return replace(
        result, effects=(PlaybackFinished(event.utterance_id, event.ok), *result.effects)
    )


def speech_heard(record: CallRecord, event: ev.SpeechHeard, policy: CallPolicy) -> Step:
    if _of_earlier_turn(record, event.turn_token):
        return Step(record, outcome=Outcome.IGNORED)
    return _caller_speech(record, event.at, event.text, event.final, event.confidence, policy)


def caller_said(record: CallRecord, event: ev.CallerSaid, policy: CallPolicy) -> Step:
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
    record, effects = first_sign_of_life(record, at, policy)
    if record.utterance is None:
        record = moved(record, CallState.LISTENING)
    if not text.strip():
        return Step(record, effects)
    if not final:
        return Step(record, (*effects, CallerSpeaking()))
    record = replace(with_entry(record, at, Speaker.USER, text.strip()), listen_token=None)
    return Step(record, (*effects, CallerTurn(text.strip(), confidence)))


def digits(record: CallRecord, event: ev.DigitsPressed, policy: CallPolicy) -> Step:
    if _of_earlier_turn(record, event.turn_token):
        return Step(record, outcome=Outcome.IGNORED)
    record, effects = first_sign_of_life(record, event.at, policy)
    return Step(record, (*effects, KeysPressed(event.digits)))


def _of_earlier_turn(record: CallRecord, turn_token: str | None) -> bool:
    """Whether an input answers a ``Listen`` action that another one has replaced."""
    expected = record.listen_token
    return bool(turn_token and expected and turn_token != expected)
