"""Outcomes of a dial request."""

from __future__ import annotations

from msgspec.structs import replace

from voicecall import events as ev
from voicecall.model import CallRecord, DeadlineKind, EndDetail, EndReason
from voicecall.tones import tones_ms

from .moves import finished, looking_up, with_deadlines
from .vocabulary import CallPolicy, HangUp, Outcome, ProbeStatus, Step

__all__ = [
    "dial_accepted",
    "dial_looked_up",
    "dial_refused",
    "dial_replied",
    "dial_uncertain",
    "opened",
]


def opened(record: CallRecord, event: ev.CallOpened, policy: CallPolicy) -> Step:
    return Step(record, outcome=Outcome.IGNORED)


def dial_accepted(record: CallRecord, at: int, provider_call_id: str, policy: CallPolicy) -> Step:
    first = record.provider_call_id is None
    record = record.with_alias(provider_call_id)
    if record.ending is not None:
        if not first:
            return Step(record)
        hangup = at + 10 * policy.hangup_retry_ms
        return Step(with_deadlines(record, DeadlineKind.DIAL, hangup=hangup), (HangUp(),))
    # After a restart, the carrier can be asked for the call's state only now.
    effects = (ProbeStatus(),) if first and record.recovering else ()
    if record.answered_at is not None or DeadlineKind.DIAL not in record.deadlines:
        return Step(record, effects)
    # A carrier may play the keypad tones before it reports that the call was answered.
    tones = tones_ms(record.dtmf_sequence or "")
    ring = at + policy.ring_timeout_ms + tones + 15_000
    return Step(with_deadlines(record, DeadlineKind.DIAL, ring=ring), effects)


def dial_replied(record: CallRecord, event: ev.DialAccepted, policy: CallPolicy) -> Step:
    """The reply to the dial request. If a webhook came before it, the webhook's id is the newer
    one."""
    accepted = dial_accepted(record, event.at, event.provider_call_id, policy)
    if record.provider_call_id is None:
        return accepted
    current = replace(accepted.record, provider_call_id=record.provider_call_id)
    return replace(accepted, record=current)


def dial_refused(record: CallRecord, event: ev.DialRefused, policy: CallPolicy) -> Step:
    if record.provider_call_id is not None:
        return Step(record, outcome=Outcome.IGNORED)
    if record.ending is not None:
        return finished(record, event.at, record.ending.reason, record.ending.detail)
    return finished(record, event.at, EndReason.FAILED, EndDetail.DIAL_FAILED, event.error)


def dial_uncertain(record: CallRecord, event: ev.DialUncertain, policy: CallPolicy) -> Step:
    if record.provider_call_id is not None:
        return Step(record, outcome=Outcome.IGNORED)
    return looking_up(record, event.at, policy)


def dial_looked_up(record: CallRecord, event: ev.DialLookedUp, policy: CallPolicy) -> Step:
    if record.provider_call_id is not None:
        return Step(record, outcome=Outcome.IGNORED)
    if event.provider_call_id is None:
        return finished(record, event.at, EndReason.FAILED, EndDetail.DIAL_UNKNOWN)
    found = dial_accepted(record, event.at, event.provider_call_id, policy)
    return replace(found, effects=found.effects or (ProbeStatus(),))
