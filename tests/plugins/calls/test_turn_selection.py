"""Which detector of voices a configuration selects, and what it says where there is none."""

from __future__ import annotations

from typing import Any

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


@pytest.mark.parametrize("config", [{}, {**STREAM, "bargeIn": {"enabled": False}}])
def test_none_is_selected_where_none_is_used(config: dict[str, Any]) -> None:
    assert wire(environ=KEYS, **config).turn is None
