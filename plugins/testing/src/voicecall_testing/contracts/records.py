"""Call records for the store suites."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from voicecall.model import (
    CallRecord,
    CallState,
    DeadlineKind,
    Direction,
    EndReason,
    Speaker,
    TranscriptEntry,
)

__all__ = ["HOUR", "NOW", "call_record", "ended", "said"]

NOW = 1_700_000_000_000
HOUR = 3_600_000


def call_record(call_id: str = "call-1", **changes: Any) -> CallRecord:
    """A ringing inbound call with one deadline; ``changes`` are fields of the record."""
    record = CallRecord(
        call_id=call_id,
        provider="carrier",
        direction=Direction.INBOUND,
        state=CallState.RINGING,
        from_number="+15550001111",
        to_number="+15550002222",
        started_at=NOW,
        provider_call_id=f"id-of-{call_id}",
        aliases=(f"id-of-{call_id}",),
        deadlines={DeadlineKind.MAX_DURATION: NOW + HOUR},
    )
    return replace(record, **changes)


def ended(call_id: str, at: int, **changes: Any) -> CallRecord:
    return call_record(
        call_id,
        state=CallState.COMPLETED,
        end_reason=EndReason.COMPLETED,
        started_at=at,
        ended_at=at,
        deadlines={},
        **changes,
    )


def said(text: str, speaker: Speaker = Speaker.USER, *, complete: bool = True) -> TranscriptEntry:
    return TranscriptEntry(NOW, speaker, text, complete)
