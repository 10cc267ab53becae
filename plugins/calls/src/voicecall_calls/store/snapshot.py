"""A call as a line of the journal, with the keys of OpenClaw's call records, which readers expect.

``metadata`` includes the figures of the call's newest turn: ``lastTurnId``, ``lastTurnLatencyMs``,
``lastTurnListenWaitMs``, ``lastTurnCompletedAt``. Tokens and the state of the state machine are
only in the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from voicecall.model import CallRecord, DeadlineKind, MessageState
from voicecall.store import TurnRow

__all__ = ["journal_line"]


class _Said(msgspec.Struct, rename="camel"):
    timestamp: int
    speaker: str
    text: str
    is_final: bool
    complete: bool


class _Call(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    call_id: str
    provider_call_id: str | None = None
    aliases: tuple[str, ...] = ()
    provider: str
    direction: str
    state: str
    from_: str = msgspec.field(name="from")
    to: str
    agent_id: str | None = None
    session_key: str | None = None
    started_at: int
    answered_at: int | None = None
    ended_at: int | None = None
    end_reason: str | None = None
    end_detail: str | None = None
    end_note: str | None = None
    media: str
    deadlines: Mapping[DeadlineKind, int]
    transcript: list[_Said]
    metadata: Mapping[str, Any]


def journal_line(record: CallRecord, turn: TurnRow | None = None) -> bytes:
    """The record, with the figures of its newest turn, as one line of JSON."""
    call = _Call(
        call_id=record.call_id,
        provider_call_id=record.provider_call_id,
        aliases=record.aliases,
        provider=record.provider,
        direction=record.direction,
        state=record.state,
        from_=record.from_number,
        to=record.to_number,
        agent_id=record.agent_id,
        session_key=record.session_key,
        started_at=record.started_at,
        answered_at=record.answered_at,
        ended_at=record.ended_at,
        end_reason=record.end_reason,
        end_detail=record.end_detail,
        end_note=record.end_note,
        media=record.media,
        deadlines=record.deadlines,
        transcript=[
            _Said(entry.at, entry.speaker, entry.text, True, entry.complete)
            for entry in record.transcript
        ],
        metadata={**record.metadata, **_known(record), **(_figures(turn) if turn else {})},
    )
    return msgspec.json.encode(call) + b"\n"


def _known(record: CallRecord) -> dict[str, Any]:
    message = record.message
    unspoken = message is not None and message.state is not MessageState.DONE
    return _given(
        mode=record.mode,
        initialMessage=message.text if message is not None and unspoken else None,
        requesterSessionKey=record.requester_session_key,
        numberRouteKey=record.route_key,
        dtmfSequence=record.dtmf_sequence,
    )


def _figures(turn: TurnRow) -> dict[str, Any]:
    times = (turn.at, turn.stt_final, turn.agent_done, turn.first_audio_sent, turn.playback_done)
    return _given(
        lastTurnId=turn.turn_id,
        lastTurnLatencyMs=turn.latency_ms,
        lastTurnListenWaitMs=turn.listen_wait_ms,
        lastTurnCompletedAt=max(at for at in times if at is not None),
    )


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
