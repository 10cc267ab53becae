"""The WebRTC detector: the contract of turn detectors, noises, and the detector's parts."""

from __future__ import annotations

import numpy as np
import pytest

from voicecall import ProviderKind
from voicecall.audio import MULAW_8K, PCM16_8K, mulaw_to_pcm16
from voicecall.registry import Registry
from voicecall.turn import TurnDetectorProvider, VoiceStarted
from voicecall_testing.contracts.audio import silence
from voicecall_testing.contracts.turn import TurnDetectorContract, listen
from voicecall_turn.floor import NoiseFloor
from voicecall_turn.provider import WebRtcDetector, WebRtcProvider
from voicecall_turn.voicing import Voicing

from .clips import TUNING, interruptions

pytestmark = pytest.mark.contract


class TestWebRtc(TurnDetectorContract):
    @pytest.fixture
    def provider(self) -> TurnDetectorProvider:
        return WebRtcProvider()

    @pytest.fixture
    def speech(self) -> bytes:
        clip = interruptions(TUNING)[0]
        return clip.audio[MULAW_8K.size(clip.begins_ms) : MULAW_8K.size(clip.ends_ms)]


def test_it_is_found_and_chosen_automatically() -> None:
    info = Registry().load(ProviderKind.TURN, "webrtc")
    assert not info.demo
    assert info.required == ()
    assert info.config_model is None


def noise(milliseconds: int, level: float, seed: int = 1) -> bytes:
    """White noise, pcm16 at 8 kHz."""
    samples = np.random.default_rng(seed).normal(0, level, milliseconds * 8)
    return samples.clip(-32768, 32767).astype(np.int16).tobytes()


def test_knocks_do_not_add_up_to_a_voice() -> None:
    knock = noise(60, 3000) + silence(190, PCM16_8K)
    assert listen(WebRtcDetector(PCM16_8K), knock * 20, PCM16_8K) == []


def test_a_steady_noise_is_a_voice_for_a_second_at_most() -> None:
    detector = WebRtcDetector(PCM16_8K)
    events = listen(detector, silence(1000, PCM16_8K) + noise(20_000, 3000), PCM16_8K)
    assert len(events) == 2
    began, ended = events
    assert began.at_ms == pytest.approx(1000, abs=40)
    assert ended.at_ms == pytest.approx(2000, abs=60)


def test_a_voice_is_heard_over_a_noise_that_has_become_the_background() -> None:
    clip = interruptions(TUNING)[3]
    voice = np.frombuffer(mulaw_to_pcm16(clip.audio), np.int16)
    line = np.frombuffer(noise(5000, 60), np.int16).astype(np.float64)
    line[24_000 : 24_000 + len(voice)] += voice * (12_000 / np.abs(voice).max())
    events = listen(WebRtcDetector(PCM16_8K), line.astype(np.int16).tobytes(), PCM16_8K)
    assert isinstance(events[0], VoiceStarted)
    assert events[0].at_ms == pytest.approx(3000 + clip.begins_ms, abs=100)


# --- counting --------------------------------------------------------------------------------


def feed(voicing: Voicing, pattern: str) -> list[tuple[int, bool]]:
    """Feed frames (``#``: voiced). Returns the frames at which a voice began or ended."""
    return [
        (number, voicing.active)
        for number, frame in enumerate(pattern)
        if voicing.frame(frame == "#")
    ]


def test_a_voice_begins_with_enough_voiced_frames_and_is_dated_back() -> None:
    voicing = Voicing(onset=3, window=5, hangover=2)
    assert feed(voicing, "..#.##") == [(5, True)]
    assert voicing.began == 2


def test_voiced_frames_that_lie_too_far_apart_are_no_voice() -> None:
    assert feed(Voicing(onset=3, window=5, hangover=2), "#..#..#..#..#..") == []
    assert feed(Voicing(onset=3, window=5, hangover=2), "#.#..#.#..#") == []


def test_what_a_voice_was_made_of_makes_no_second_one() -> None:
    assert feed(Voicing(onset=3, window=8, hangover=2), "###..#..") == [(2, True), (4, False)]


def test_a_voice_ends_after_the_hangover_where_it_was_last_voiced() -> None:
    voicing = Voicing(onset=3, window=5, hangover=4)
    assert feed(voicing, "###...#....###") == [(2, True), (10, False), (13, True)]
    assert voicing.began == 11
    voicing = Voicing(onset=3, window=5, hangover=4)
    feed(voicing, "###...#....")
    assert voicing.ended == 7


def test_the_floor_is_the_quietest_of_late() -> None:
    floor = NoiseFloor(3)
    assert floor.above(61)
    assert not floor.above(59)
    # The quiet frames before the call are forgotten: now 59 is the quietest.
    assert floor.above(200)
    assert floor.above(200)
    assert not floor.above(200)
    # It falls at once, but never below the noise of the codec itself.
    assert not floor.above(0)
    assert not floor.above(60)
    assert floor.above(61)
