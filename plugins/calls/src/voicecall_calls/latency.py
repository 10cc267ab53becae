"""Latency statistics of turns, from rows of the store or lines of a journal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from voicecall.store import TurnRow

__all__ = ["journal_report", "latency_report"]

_Number = int | float


def _between(start: str, end: str) -> Callable[[TurnRow], int | None]:
    def span(row: TurnRow) -> int | None:
        begin, finish = getattr(row, start), getattr(row, end)
        return None if begin is None or finish is None else finish - begin

    return span


_SERIES: Mapping[str, Callable[[TurnRow], int | None]] = {
    "turnLatency": lambda row: row.latency_ms,
    "listenWait": lambda row: row.listen_wait_ms,
    "agentFirstToken": _between("agent_start", "first_token"),
    "speechFirstByte": _between("first_token", "tts_first_byte"),
    "bargeInStop": lambda row: row.barge_in_stop_ms,
}
"""``turnLatency``: from the end of the caller's speech, if known, to the first audio sent.
``listenWait``: from the end of a question to its answer. ``bargeInStop``: from the onset of the
interrupting speech to the clear."""


def latency_report(rows: Sequence[TurnRow]) -> dict[str, Any]:
    """Each turn counts once; an empty series is all zeros. ``failedTurns``: turns in which the
    agent failed; ``fillers``: turns in which a filler was said because it was slow."""
    report: dict[str, Any] = {
        "recordsScanned": len(rows),
        "failedTurns": sum(row.failed is not None for row in rows),
        "fillers": sum(row.filler for row in rows),
    }
    for name, value_of in _SERIES.items():
        values = sorted(value for row in rows if (value := value_of(row)) is not None)
        report[name] = _statistics(values)
    return report


def journal_report(lines: Iterable[str]) -> dict[str, Any]:
    """The same for ``lastTurnLatencyMs`` and ``lastTurnListenWaitMs`` in lines of a journal.

    A line is a call record, or an object with one under ``call``; other lines are skipped.
    Later lines of a call repeat the figures of its last turn, which count once.
    """
    scanned = 0
    turns: set[tuple[Any, ...]] = set()
    for number, line in enumerate(lines):
        record = _record(line)
        if record is None:
            continue
        scanned += 1
        metadata = record.get("metadata")
        if isinstance(metadata, Mapping):
            names = ("lastTurnLatencyMs", "lastTurnListenWaitMs")
            latency, wait = (_finite(metadata.get(name)) for name in names)
            which = ("lastTurnId", "lastTurnCompletedAt", "turnCount")
            turn = tuple(repr(metadata.get(name)) for name in which)
            turns.add((str(record.get("callId", number)), *turn, latency, wait))
    report: dict[str, Any] = {"recordsScanned": scanned}
    for index, name in ((-2, "turnLatency"), (-1, "listenWait")):
        values = sorted(turn[index] for turn in turns if turn[index] is not None)
        report[name] = _statistics(values)
    return report


def _record(line: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, Mapping) and isinstance(found.get("call"), Mapping):
        found = found["call"]
    return found if isinstance(found, Mapping) else None


def _finite(value: Any) -> _Number | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if number and math.isfinite(value) else None


def _statistics(ordered: Sequence[_Number]) -> dict[str, _Number]:
    count = len(ordered)
    result: dict[str, _Number] = {
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
