"""Barge-in with the gate: when the bot falls silent, what does not silence it, when it goes on.

``make test`` uses a part of the clips, ``make soak`` all of them; both print the figures, the soak
by half. The documented bounds: the median from the first audible sample to the carrier's clear is
under 300 ms, a noise under 200 ms never pauses the bot, after a back-channel the story goes on
within a second, and nothing is heard after the clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voicecall_testing.clock import virtual_backend
from voicecall_turn.provider import WebRtcProvider

from .clips import (
    HELD_OUT,
    TUNING,
    Half,
    backchannels,
    interruptions,
    long_noises,
    short_noises,
)
from .stage import STORY_MS, Trial, open_stage

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

HALVES = [
    pytest.param(half, every, id=f"{half.name}, {word}", marks=marks)
    for half in (TUNING, HELD_OUT)
    for word, every, marks in (("a part", 5, ()), ("all", 1, pytest.mark.soak))
]
over_halves = pytest.mark.parametrize(("half", "every"), HALVES)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def told(what: str, half: Half, values: Sequence[float]) -> None:
    p50, p95 = np.percentile(values, (50, 95))
    print(
        f"\n{what}, {half.name}: {len(values)} clips, p50 {p50:.0f} ms, p95 {p95:.0f} ms,"
        f" max {max(values):.0f} ms"
    )


def whole(trial: Trial) -> bool:
    """The caller heard the whole story, and no part of it twice."""
    return trial.told_ms == pytest.approx(STORY_MS, abs=1)


@over_halves
async def test_an_interruption_silences_the_bot_at_once(
    tmp_path: Path, half: Half, every: int
) -> None:
    cleared = []
    async with open_stage(tmp_path, WebRtcProvider()) as stage:
        for clip in interruptions(half)[::every]:
            trial = await stage.trial(clip)
            assert trial.cleared is not None, clip.name
            assert trial.answered, clip.name
            assert trial.after_ms == 0, clip.name
            cleared.append(trial.cleared)
    told("from the first sound to clear", half, cleared)
    by_words = sum(ms > 480 for ms in cleared)
    print(f"silenced by the recogniser's words, not by the gate: {by_words}")
    assert np.percentile(cleared, 50) < 300


@over_halves
async def test_after_a_back_channel_the_story_goes_on(
    tmp_path: Path, half: Half, every: int
) -> None:
    resumed, paused = [], 0
    async with open_stage(tmp_path, WebRtcProvider()) as stage:
        for clip in backchannels(half)[::every]:
            trial = await stage.trial(clip)
            assert not trial.answered, clip.name
            assert whole(trial), clip.name
            if trial.cleared is not None:
                assert trial.resumed is not None, clip.name
                # While it lasted nothing was heard.
                assert 0 < trial.resumed < 1000, clip.name
                resumed.append(trial.resumed)
                paused += 1
    assert paused
    told("from the end of a back-channel to the story", half, resumed)


@over_halves
async def test_a_noise_under_200_ms_never_pauses_the_bot(
    tmp_path: Path, half: Half, every: int
) -> None:
    clips = short_noises(half)[::every]
    assert clips
    async with open_stage(tmp_path, WebRtcProvider()) as stage:
        for start in range(0, len(clips), 10):
            await stage.tell()
            clears = stage.phone.socket.clears
            for clip in clips[start : start + 10]:
                await stage.phone.socket.speak(clip.audio)
                await stage.quiet(300)
                assert stage.phone.socket.clears == clears, clip.name
            assert stage.phone.record.transcript[-1].text == "Tell me a story."
            await stage.over()
    print(f"\nnoises under 200 ms, {half.name}: {len(clips)} clips, none paused the bot")


@over_halves
async def test_a_long_noise_costs_a_pause_at_most(tmp_path: Path, half: Half, every: int) -> None:
    paused, clips = 0, long_noises(half)[::every]
    assert clips
    async with open_stage(tmp_path, WebRtcProvider()) as stage:
        for clip in clips:
            trial = await stage.trial(clip)
            assert not trial.answered, clip.name
            assert whole(trial), clip.name
            paused += trial.cleared is not None
    print(f"\nnoises of 3 s, {half.name}: {len(clips)} clips, {paused} paused the bot for a while")


async def test_without_a_detector_the_recogniser_decides(tmp_path: Path) -> None:
    (clip,) = [
        clip for clip in interruptions(TUNING) if clip.name.startswith("'Hold on' by en-us at 165")
    ]
    async with open_stage(tmp_path, None) as stage:
        trial = await stage.trial(clip)
    assert trial.answered
    # It reports speech after 150 ms, which must last for another 250 ms, on a grid of 20 ms.
    assert trial.cleared == pytest.approx(400, abs=40)
