"""Statistics over turn rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from voicecall.store import TurnRow

__all__ = ["latency_report"]


def _between(start: str, end: str) -> Callable[[TurnRow], int | None]:
    def span(row: TurnRow) -> int | None:
        begin, finish = getattr(row, start), getattr(row, end)
        return None if begin is None or finish is None else finish - begin

    return span


def _listen_wait(row: TurnRow) -> int | None:
    if row.kind != "continue" or row.stt_final is None or row.playback_done is None:
        return None
    return max(row.stt_final - row.playback_done, 0)


_SERIES: Mapping[str, Callable[[TurnRow], int | None]] = {
    "turnLatency": lambda row: row.latency_ms,
    "listenWait": _listen_wait,
    "agentFirstToken": _between("agent_start", "first_token"),
    "speechFirstByte": _between("first_token", "tts_first_byte"),
    "bargeInStop": lambda row: row.barge_in_stop_ms,
}
"""``turnLatency``: end of the caller's speech to the first audio sent. ``listenWait``: end of a
question to its answer. ``bargeInStop``: onset of the interrupting speech to the clear."""


def latency_report(rows: Sequence[TurnRow]) -> dict[str, Any]:
    """Each turn counts once; an empty series is all zeros."""
    report: dict[str, Any] = {"recordsScanned": len(rows)}
    for name, value_of in _SERIES.items():
        values = sorted(value for row in rows if (value := value_of(row)) is not None)
        report[name] = _statistics(values)
    return report


def _statistics(ordered: Sequence[int]) -> dict[str, float]:
    count = len(ordered)
    result: dict[str, float] = {
        "count": count,
        "minMs": ordered[0] if count else 0,
        "maxMs": ordered[-1] if count else 0,
        "avgMs": sum(ordered) / count if count else 0,
    }
    for percent in (50, 90, 95, 99):
        # Nearest rank.
        index = min(max(math.ceil(percent / 100 * count) - 1, 0), count - 1)
        result[f"p{percent}Ms"] = ordered[index] if count else 0
    return result
