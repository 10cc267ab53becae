"""The first record of a call."""

from __future__ import annotations

from typing import Any

from voicecall import events as ev
from voicecall.model import (
    CallMode,
    CallRecord,
    CallState,
    DeadlineKind,
    Direction,
    EndDetail,
    EndReason,
    FirstMessage,
    MediaPath,
)

from .vocabulary import CallPolicy, Dial, RefuseCall, Step

__all__ = ["open_inbound", "open_outbound", "refuse_inbound"]


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
    """The record of a call to place, and the effect that dials."""
    longest = policy.dial_ms + policy.ring_timeout_ms + policy.max_duration_ms
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
            DeadlineKind.MAX_DURATION: at + longest,
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
    """The record of an inbound call. Call :func:`voicecall.machine.step` with ``event`` next."""
    deadlines = {
        DeadlineKind.MAX_DURATION: event.at + policy.ring_timeout_ms + policy.max_duration_ms,
        DeadlineKind.PROBE: event.at + policy.quiet_ms,
    }
    if policy.unanswered_ms:
        deadlines[DeadlineKind.UNANSWERED] = event.at + policy.unanswered_ms
    return CallRecord(
        call_id=call_id,
        provider=provider,
        direction=Direction.INBOUND,
        state=CallState.RINGING,
        from_number=event.from_number or "unknown",
        to_number=event.to_number or "unknown",
        started_at=event.at,
        media=media,
        message=FirstMessage(greeting) if greeting else None,
        provider_call_id=event.provider_call_id,
        aliases=(event.provider_call_id,),
        deadlines=deadlines,
        **more,
    )


def refuse_inbound(
    *, call_id: str, provider: str, event: ev.CarrierEvent, detail: EndDetail
) -> Step:
    """The terminal record of an inbound call that is refused."""
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
