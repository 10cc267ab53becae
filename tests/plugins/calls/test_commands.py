"""How long commands wait for the gateway."""

from __future__ import annotations

import pytest

from voicecall.machine import CallPolicy
from voicecall.tones import tones_ms
from voicecall_calls.commands.calls import keys_timeout_s, speak_timeout_s
from voicecall_calls.operations import check_digits

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("digits", ["1", "ww123456#", "W" * 100])
def test_a_command_waits_until_its_keys_are_pressed(digits: str) -> None:
    swap_ms = CallPolicy().stream_start_ms
    assert keys_timeout_s(check_digits(digits)) * 1000 > tones_ms(digits) + swap_ms


@pytest.mark.parametrize("length", [1, 4096, 20_000])
def test_a_command_waits_until_its_words_are_spoken(length: int) -> None:
    ten_characters_a_second = length / 10
    assert speak_timeout_s("x" * length) > 60 + ten_characters_a_second
