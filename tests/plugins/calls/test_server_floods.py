"""How many lines of one kind the call server logs."""

from __future__ import annotations

import logging

import pytest

from voicecall_calls.server.floods import FloodLog

pytestmark = pytest.mark.unit


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_kind_of_line_has_a_minute_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = FloodLog(clock)
    for number in range(100):
        log.warning("webhook from %s refused", number)
    log.warning("media socket of %s refused", 7)
    clock.now += 59.9
    log.warning("webhook from %s refused", 100)
    assert caplog.messages == [
        *(f"webhook from {number} refused" for number in range(60)),
        "media socket of 7 refused",
    ]


def test_what_was_left_out_is_told_with_the_next_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    log = FloodLog(clock)
    for _ in range(100):
        log.info("100%% of %s", "it")
    caplog.clear()
    for _ in range(2):
        clock.now += 60
        log.info("100%% of %s", "it")
        log.info("100%% of %s", "it")
    told = "100% of it (40 lines like this one were left out)"
    assert caplog.messages == [told, "100% of it", "100% of it", "100% of it"]
    assert {record.levelno for record in caplog.records} == {logging.INFO}
