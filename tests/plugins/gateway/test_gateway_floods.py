"""How many lines of one kind are logged about strangers."""

from __future__ import annotations

import logging

import pytest

from voicecall_gateway.floods import FloodFilter, FloodLog

pytestmark = pytest.mark.unit

LOGGER = logging.getLogger("voicecall.test.floods")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_kind_of_line_has_a_minute_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = FloodLog(LOGGER, clock)
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
    log = FloodLog(LOGGER, clock)
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


def test_what_befalls_requests_is_bounded_as_an_error_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = FloodLog(LOGGER, Clock())
    for number in range(70):
        log.error("webhook %s failed", number)
    assert caplog.messages == [f"webhook {number} failed" for number in range(60)]
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_a_filter_lets_errors_and_so_many_lines_through(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    bound = FloodFilter(clock)
    LOGGER.addFilter(bound)
    try:
        for _ in range(70):
            LOGGER.warning("Invalid request")
            LOGGER.error("a fault")
        clock.now += 60
        LOGGER.warning("Invalid request")
    finally:
        LOGGER.removeFilter(bound)
    assert caplog.messages.count("Invalid request") == 60
    assert caplog.messages.count("a fault") == 70
    assert caplog.messages[-1] == "Invalid request (10 lines like this one were left out)"
