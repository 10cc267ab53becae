"""The tests' own decoder of heard sentences, with gaps as a busy machine makes them."""

from __future__ import annotations

import pytest

from voicecall.audio import mulaw_to_pcm16
from voicecall_testing.fsk import encode

from .lab.hearing import sentences
from .lab.town import sound

pytestmark = pytest.mark.unit

_FRAME = 160
_STORY = encode("Once upon a time, there was a very small phone.")


def _quiet(frames: int) -> bytes:
    return b"\xff" * _FRAME * frames


@pytest.mark.parametrize("at", [1, 7, 20])
@pytest.mark.parametrize("gap", [1, 5, 6])
def test_a_short_gap_does_not_cut_a_sentence(at: int, gap: int) -> None:
    torn = _STORY[: at * _FRAME] + _quiet(gap) + _STORY[at * _FRAME :]
    assert sentences(mulaw_to_pcm16(torn)) == ["Once upon a time, there was a very small phone."]


def test_a_long_gap_does() -> None:
    torn = _STORY[: 20 * _FRAME] + _quiet(7) + _STORY[20 * _FRAME :]
    assert sentences(mulaw_to_pcm16(torn)) == [None]


@pytest.mark.parametrize("gap", [1, 2, 5, 6, 7, 50])
def test_a_sentence_soon_behind_one_that_was_cut_off_is_heard(gap: int) -> None:
    cut = mulaw_to_pcm16(_STORY[: 20 * _FRAME] + _quiet(gap))
    assert sentences(cut + sound("Room 12.")) == [None, "Room 12."]


@pytest.mark.parametrize("gap", [1, 6, 7])
def test_whole_sentences_are_told_apart(gap: int) -> None:
    pcm = sound("Clinic.") + mulaw_to_pcm16(_quiet(gap)) + sound("Yes?")
    assert sentences(pcm) == ["Clinic.", "Yes?"]
