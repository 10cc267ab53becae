"""Statistics over turns: which times are compared, and how percentiles are chosen."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall.store import TurnRow
from voicecall_calls.latency import journal_report, latency_report

pytestmark = pytest.mark.unit

ZEROS = dict.fromkeys(("count", "minMs", "maxMs", "avgMs", "p50Ms", "p90Ms", "p95Ms", "p99Ms"), 0)
SERIES = ("turnLatency", "listenWait", "agentFirstToken", "speechFirstByte", "bargeInStop")


def turn(kind: str = "reply", **times: Any) -> TurnRow:
    return TurnRow(call_id="c", turn_id="t", kind=kind, at=0, **times)


def waiting(*latencies: int) -> list[TurnRow]:
    return [turn(speech_ended=1000, first_audio_sent=1000 + ms) for ms in latencies]


def test_nothing_measured_is_all_zeros() -> None:
    nothing = {"failedTurns": 0, "fillers": 0, **dict.fromkeys(SERIES, ZEROS)}
    assert latency_report([]) == {"recordsScanned": 0, **nothing}
    unmeasured = latency_report([turn("message", first_audio_sent=5)])
    assert unmeasured == {"recordsScanned": 1, **nothing}


def test_failures_and_fillers_are_counted() -> None:
    failed = turn(failed="no answer within 30 s", filler=True)
    report = latency_report([failed, turn(filler=True), turn()])
    counted = (report["recordsScanned"], report["failedTurns"], report["fillers"])
    assert counted == (3, 1, 2)


def test_percentiles_are_of_nearest_rank() -> None:
    report = latency_report(waiting(*range(200, 0, -1)))["turnLatency"]
    assert report == {
        "count": 200,
        "minMs": 1,
        "maxMs": 200,
        "avgMs": 100.5,
        "p50Ms": 100,
        "p90Ms": 180,
        "p95Ms": 190,
        "p99Ms": 198,
    }
    assert latency_report(waiting(1, 2))["turnLatency"]["avgMs"] == 1.5
    few = latency_report(waiting(10, 30, 20))["turnLatency"]
    assert [few[f"p{p}Ms"] for p in (50, 90, 95, 99)] == [20, 30, 30, 30]


def test_each_series_has_its_own_times() -> None:
    report = latency_report(
        [
            turn(
                speech_ended=1000,
                stt_final=1200,
                agent_start=1210,
                first_token=1400,
                tts_first_byte=1550,
                first_audio_sent=1600,
                playback_done=3000,
                barge_in_at=2900,
                barge_in_stop_ms=80,
            ),
            turn("continue", playback_done=5000, stt_final=7500),
            turn("continue", playback_done=5000, stt_final=4000),
        ]
    )
    found = {name: (report[name]["count"], report[name]["maxMs"]) for name in SERIES}
    assert found == {
        "turnLatency": (1, 600),
        "listenWait": (2, 2500),
        "agentFirstToken": (1, 190),
        "speechFirstByte": (1, 150),
        "bargeInStop": (1, 80),
    }
    assert report["listenWait"]["minMs"] == 0


@settings(max_examples=50)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=120))
def test_a_percentile_is_a_measured_value_with_enough_below_it(values: list[int]) -> None:
    report = latency_report(waiting(*values))["turnLatency"]
    assert (report["count"], report["minMs"], report["maxMs"]) == (
        len(values),
        min(values),
        max(values),
    )
    assert report["avgMs"] == sum(values) / len(values)
    for percent in (50, 90, 95, 99):
        found = report[f"p{percent}Ms"]
        assert found in values
        needed = math.ceil(percent * len(values) / 100)
        assert sum(value <= found for value in values) >= needed
        assert sum(value < found for value in values) < needed


def line(call_id: str | None, **metadata: Any) -> str:
    record = {"callId": call_id} if call_id is not None else {}
    return json.dumps({**record, "metadata": metadata})


def test_a_journal_is_read_as_it_is() -> None:
    lines = [
        line("a", lastTurnLatencyMs=300, lastTurnListenWaitMs=50, lastTurnCompletedAt=1),
        # The same turn, in later lines of the call and in the wrapper of a store.
        line("a", lastTurnLatencyMs=300, lastTurnListenWaitMs=50, lastTurnCompletedAt=1),
        json.dumps(
            {
                "call": json.loads(
                    line("a", lastTurnLatencyMs=300, lastTurnListenWaitMs=50, lastTurnCompletedAt=1)
                ),
                "persistedAt": 9,
                "sequence": 3,
            }
        ),
        # Another turn with equal figures, and another call.
        line("a", lastTurnLatencyMs=300, lastTurnListenWaitMs=50, lastTurnCompletedAt=2),
        line("b", lastTurnLatencyMs=500.5, lastTurnCompletedAt=1),
        # Figures that are none.
        line("b", lastTurnLatencyMs="fast", lastTurnListenWaitMs=True),
        '{"callId": "b", "metadata": {"lastTurnLatencyMs": NaN}}',
        '{"callId": "b", "metadata": [1]}',
        '{"call_id": "old", "metadata": {}}',
        # No records.
        "null",
        "[]",
        "torn {",
        "[" * 100_000,
    ]
    report = journal_report(lines)
    assert set(report) == {"recordsScanned", "turnLatency", "listenWait"}
    assert report["recordsScanned"] == 9
    latency, wait = report["turnLatency"], report["listenWait"]
    assert (latency["count"], latency["minMs"], latency["maxMs"]) == (3, 300, 500.5)
    assert latency["avgMs"] == pytest.approx(1100.5 / 3)
    assert (wait["count"], wait["p50Ms"]) == (2, 50)


def test_an_empty_journal_is_all_zeros() -> None:
    assert journal_report([]) == {"recordsScanned": 0, "turnLatency": ZEROS, "listenWait": ZEROS}
