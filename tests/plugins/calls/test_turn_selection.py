"""Which voice detector a configuration selects, and the note if there is none."""

from __future__ import annotations

import pytest

from voicecall import ProviderKind
from voicecall.selection import Selection
from voicecall_calls.wiring import require

from .phone_registry import KEYS, wire

pytestmark = pytest.mark.unit

STREAM = {"streaming": {"enabled": True}}


def test_the_first_installed_one_is_taken_unless_one_is_named() -> None:
    wiring = wire(environ=KEYS, **STREAM)
    assert wiring.turn is not None
    assert require(wiring.turn)[0].id == "alert"
    named = wire(environ=KEYS, **STREAM, bargeIn={"detector": "drowsy"})
    assert named.turn is not None
    assert require(named.turn)[0].id == "drowsy"
    assert wiring.notes == named.notes == []


def test_without_one_calls_are_streamed_all_the_same_and_nothing_is_said() -> None:
    wiring = wire(ProviderKind.TURN, environ=KEYS, **STREAM)
    assert wiring.turn is not None
    assert wiring.turn.outcome is Selection.NO_REGISTERED_PROVIDER
    assert wiring.problems == wiring.notes == []


def test_one_that_is_named_and_not_installed_is_noted() -> None:
    wiring = wire(environ=KEYS, **STREAM, bargeIn={"detector": "alerted"})
    assert wiring.problems == []
    (note,) = wiring.notes
    assert note.startswith("plugins.entries.voice-call.config.bargeIn.detector: ")
    assert "alerted" in note
    assert "speech recognition alone interrupts" in note


def test_calls_that_are_not_streamed_need_none() -> None:
    assert wire(environ=KEYS).turn is None


def test_one_is_there_for_when_barge_in_is_switched_on() -> None:
    wiring = wire(environ=KEYS, **STREAM, bargeIn={"enabled": False})
    assert wiring.turn is not None
    assert wiring.turn.outcome is Selection.OK
