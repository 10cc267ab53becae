"""How PocketSphinx results are scored, on hand-written paths."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from voicecall_stt_pocketsphinx.scoring import score

pytestmark = pytest.mark.unit


@dataclass(frozen=True)
class Part:
    word: str
    start_frame: int
    end_frame: int
    ascore: float


def part(word: str, start: int, end: int, nats: float) -> Part:
    """``nats``: thousandths for each frame from ``start`` to ``end``, inclusive."""
    return Part(word, start, end, math.exp(nats * (end - start + 1) / 1000))


FREE = [part("SIL", 0, 9, 0), part("AA", 10, 54, -1), part("B", 55, 109, -1)]


def test_a_grammar_that_fits_as_free_phones_do_has_no_distance() -> None:
    words = [part("<sil>", 0, 9, 0), part("yes", 10, 59, -1), part("please", 60, 109, -1)]
    assert score(words, FREE) == pytest.approx(0)


def test_the_distance_is_shared_out_over_the_frames_of_speech() -> None:
    words = [part("<sil>", 0, 9, -10), part("yes", 10, 59, -2), part("please", 60, 109, -4)]
    # 10 frames of silence at -10, 50 of speech at -1 and 50 at -3, over 100.
    assert score(words, FREE) == pytest.approx(-3)


def test_a_long_word_that_fits_badly_outweighs_the_rest() -> None:
    words = [part("yes", 10, 79, -1), part("please", 80, 109, -8)]
    # -2.1 on average; the worst word lies 7 below free phones and is allowed 2.
    assert score(words, FREE) == pytest.approx(-5)


def test_a_short_word_that_fits_badly_counts_in_the_average_alone() -> None:
    words = [part("yes", 10, 90, -1), part("a", 91, 109, -11)]
    assert score(words, FREE) == pytest.approx(-1.9)


def test_a_likelihood_too_small_to_be_told_is_no_fit_at_all() -> None:
    assert score([Part("yes", 10, 109, 0.0)], FREE) == -math.inf
