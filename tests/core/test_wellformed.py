"""Text with lone surrogates is made well formed before it becomes part of an event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicecall import events as ev
from voicecall.wellformed import well_formed, well_formed_text

pytestmark = pytest.mark.unit

_HALVES = st.characters(categories=["Cs", "Lu", "So"])


@given(st.text(_HALVES))
def test_any_text_can_be_stored_afterwards(text: str) -> None:
    made = well_formed_text(text)
    assert made.encode().decode() == made
    assert well_formed_text(made) is made


@given(st.text())
def test_what_is_well_formed_stays_itself(text: str) -> None:
    assert well_formed_text(text) is text


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Fine \ud83d", "Fine \ufffd"),
        ("\ude00!", "\ufffd!"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
    ],
)
def test_halves_are_joined_or_replaced(text: str, made: str) -> None:
    assert well_formed_text(text) == made


def test_all_texts_of_an_event() -> None:
    event = ev.BotSpeaking(at=1, utterance_id="u\ud83d", text="\ude00")
    assert well_formed(event) == ev.BotSpeaking(at=1, utterance_id="u\ufffd", text="\ufffd")
    plain = ev.CallerSaid(at=1, text="Ja, ähm.", confidence=0.5)
    assert well_formed(plain) is plain
