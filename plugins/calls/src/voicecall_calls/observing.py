"""Reports to the gateway: calls to observers' hooks, and events for subscribers of ``/rpc``."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec.structs import replace

from voicecall.errors import StoreError
from voicecall.events import CallEvent
from voicecall.hosting import GatewayHost
from voicecall.model import CallRecord, TranscriptEntry
from voicecall.store import CallStore, Commit, TurnRow
from voicecall_calls.conversation.turntimes import KeepTurn
from voicecall_calls.engine.engine import Observer
from voicecall_calls.operations import projection

__all__ = ["HostObserver", "turn_keeper"]

_log = logging.getLogger("voicecall.calls")


class HostObserver:
    """An :class:`voicecall_calls.engine.engine.Observer` that forwards to the gateway."""

    def __init__(self, host: GatewayHost) -> None:
        self._host = host

    def event(self, record: CallRecord, event: CallEvent) -> None:
        self._host.observe_event(record, event)
        self._host.publish(
            "voicecall.call",
            lambda: {"event": type(event).__name__, "call": projection(record)},
        )

    def said(self, record: CallRecord, entry: TranscriptEntry) -> None:
        self._host.publish(
            "voicecall.transcript",
            lambda: {
                "callId": record.call_id,
                "at": entry.at,
                "speaker": entry.speaker.value,
                "text": entry.text,
                "complete": entry.complete,
            },
        )

    def turn(self, row: TurnRow) -> None:
        self._host.publish(
            "voicecall.turn",
            lambda: {
                "callId": row.call_id,
                "turnId": row.turn_id,
                "kind": row.kind,
                "latencyMs": row.latency_ms,
                "bargeInStopMs": row.barge_in_stop_ms,
                "filler": row.filler,
                "failed": row.failed,
            },
        )

    def ended(self, record: CallRecord) -> None:
        self._host.observe_end(record)
        self._host.publish("voicecall.ended", lambda: {"call": projection(record)})


def turn_keeper(store: CallStore, observer: Observer, hide: Callable[[str], str] = str) -> KeepTurn:
    """Returns a function that stores the row of a finished turn, then publishes it. A failure to
    store it does not end the call. ``hide`` removes credentials from the error of an agent or
    voice model."""

    async def keep(row: TurnRow) -> None:
        if row.failed is not None:
            row = replace(row, failed=hide(row.failed))
        try:
            await store.commit(Commit(turns=(row,)))
        except StoreError as error:
            text = "call %s: the figures of a turn could not be stored: %s"
            _log.warning(text, row.call_id, error)
        else:
            observer.turn(row)

    return keep
