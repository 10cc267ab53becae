"""Conformance of a turn detector (:mod:`voicecall.turn`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise

import numpy as np
import pytest

from voicecall.audio import MULAW_8K, PCM16_16K, AudioFormat, Converter
from voicecall.turn import (
    TurnDetector,
    TurnDetectorProvider,
    TurnEvent,
    VoiceStarted,
    VoiceStopped,
)

from .audio import frames, silence

__all__ = ["TurnDetectorContract", "listen"]

_LEAD_MS = 1000
_TAIL_MS = 1500


def listen(detector: TurnDetector, audio: bytes, audio_format: AudioFormat) -> list[TurnEvent]:
    """Feed ``audio`` in frames of 20 ms; returns all events."""
    return [event for frame in frames(audio, audio_format) for event in detector.process(frame)]


class TurnDetectorContract(ABC):
    """Inherit, and override the fixtures ``provider`` and ``speech``. The test module marks itself
    with ``pytest.mark.contract``."""

    @pytest.fixture
    @abstractmethod
    def provider(self) -> TurnDetectorProvider:
        """The provider under test."""

    @pytest.fixture
    @abstractmethod
    def speech(self) -> bytes:
        """Half a second to three seconds of speech without long pauses, mu-law at 8 kHz. The voice
        begins and ends within 100 ms of the edges."""

    @pytest.fixture
    def line(self, speech: bytes) -> bytes:
        return silence(_LEAD_MS, MULAW_8K) + speech + silence(_TAIL_MS, MULAW_8K)

    def test_a_voice_begins_and_ends_where_it_does(
        self, provider: TurnDetectorProvider, speech: bytes, line: bytes
    ) -> None:
        events = listen(provider.detector(MULAW_8K), line, MULAW_8K)
        voices = [event for event in events if isinstance(event, VoiceStarted | VoiceStopped)]
        assert voices
        assert [type(event) for event in voices[:2]] == [VoiceStarted, VoiceStopped]
        # The two alternate, and the last one is the end.
        assert all(type(a) is not type(b) for a, b in pairwise(voices))
        assert isinstance(voices[-1], VoiceStopped)
        ends_ms = _LEAD_MS + MULAW_8K.duration_ms(len(speech))
        assert voices[0].at_ms == pytest.approx(_LEAD_MS, abs=150)
        assert voices[-1].at_ms == pytest.approx(ends_ms, abs=250)

    def test_a_voice_is_told_while_it_lasts(
        self, provider: TurnDetectorProvider, line: bytes
    ) -> None:
        detector = provider.detector(MULAW_8K)
        within = silence(_LEAD_MS, MULAW_8K) + line[MULAW_8K.size(_LEAD_MS) :][: MULAW_8K.size(500)]
        assert [type(event) for event in listen(detector, within, MULAW_8K)] == [VoiceStarted]

    @pytest.mark.parametrize("milliseconds", [5, 20, 90, 150, 199])
    def test_a_short_noise_is_no_voice(
        self, provider: TurnDetectorProvider, milliseconds: int
    ) -> None:
        random = np.random.default_rng(milliseconds)
        for peak in (300, 3000, 30_000):
            detector = provider.detector(PCM16_16K)
            size = PCM16_16K.size(milliseconds) // 2
            noise = random.uniform(-peak, peak, size).astype(np.int16).tobytes()
            # Not aligned with the frames.
            lead, tail = silence(507, PCM16_16K), silence(_TAIL_MS, PCM16_16K)
            assert listen(detector, lead + noise + tail, PCM16_16K) == []

    def test_the_size_of_the_pieces_does_not_matter(
        self, provider: TurnDetectorProvider, line: bytes
    ) -> None:
        expected = listen(provider.detector(MULAW_8K), line, MULAW_8K)
        for size in (1, 37, 333, len(line)):
            detector = provider.detector(MULAW_8K)
            pieces = [line[at : at + size] for at in range(0, len(line), size)]
            assert [event for piece in pieces for event in detector.process(piece)] == expected

    def test_other_formats_are_taken(self, provider: TurnDetectorProvider, line: bytes) -> None:
        wide = Converter(MULAW_8K, PCM16_16K).process(line)
        expected = listen(provider.detector(MULAW_8K), line, MULAW_8K)
        events = listen(provider.detector(PCM16_16K), wide, PCM16_16K)
        assert [type(event) for event in events[:1]] == [VoiceStarted]
        assert events[0].at_ms == pytest.approx(expected[0].at_ms, abs=60)

    def test_a_reset_detector_is_a_new_one(
        self, provider: TurnDetectorProvider, line: bytes
    ) -> None:
        detector = provider.detector(MULAW_8K)
        once = listen(detector, line, MULAW_8K)
        detector.process(line[: len(line) // 2 + 1])
        detector.reset()
        assert listen(detector, line, MULAW_8K) == once

    def test_calls_do_not_hear_each_other(
        self, provider: TurnDetectorProvider, line: bytes
    ) -> None:
        expected = listen(provider.detector(MULAW_8K), line, MULAW_8K)
        one, other = provider.detector(MULAW_8K), provider.detector(MULAW_8K)
        heard: list[TurnEvent] = []
        for frame in frames(line, MULAW_8K):
            heard.extend(one.process(frame))
            assert not other.process(MULAW_8K.silence * len(frame))
        assert heard == expected
