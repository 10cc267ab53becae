"""What the configuration selects for realtime calls beside the voice model."""

from __future__ import annotations

from typing import Any

import pytest

from voicecall.model import MediaPath
from voicecall.selection import Selection

from .phone_registry import KEYS, wire

pytestmark = pytest.mark.unit

REALTIME: dict[str, Any] = {"realtime": {"enabled": True}, "inboundPolicy": "open"}


def test_a_configured_synthesis_is_chosen_for_what_the_model_cannot_say() -> None:
    wiring = wire(environ=KEYS, **REALTIME)
    assert wiring.media is MediaPath.REALTIME
    assert wiring.speech[None].selected.outcome is Selection.OK
    assert wiring.problems == []


def test_realtime_calls_need_no_synthesis() -> None:
    wiring = wire(environ={"FULL_KEY": "k"}, **REALTIME)
    assert wiring.media is MediaPath.REALTIME
    assert wiring.speech[None].selected.outcome is not Selection.OK
    assert wiring.problems == wiring.off == []


def test_calls_without_media_have_none() -> None:
    assert wire(environ=KEYS).speech[None].selected.outcome is not Selection.OK
