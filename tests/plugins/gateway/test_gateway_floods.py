"""Limits on the number of log lines that strangers can cause."""

from __future__ import annotations

import logging

import pytest

from voicecall_gateway.floods import FloodFilter, FloodLog, RepeatLog

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


def test_a_line_that_comes_again_is_written_once_and_summed_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = RepeatLog(LOGGER, clock)
    for _ in range(25):
        log.warning("media socket of %s closed: %s", "carrier", "Unknown call")
        clock.now += 0.4
        log.settle()
    log.warning("media socket of %s closed: %s", "carrier", "Start timeout")
    first, other = "media socket of carrier closed: Unknown call", "closed: Start timeout"
    assert caplog.messages == [first, f"media socket of carrier {other}"]
    clock.now += 5.0
    log.settle()
    assert caplog.messages[2:] == [f"{first} (24 more in 10 s)"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    # It was summed up: the next is a first one.
    log.warning("media socket of %s closed: %s", "carrier", "Unknown call")
    log.warning("media socket of %s closed: %s", "carrier", "Unknown call")
    assert caplog.messages[3:] == [first]
    log.settle(at_once=True)
    log.settle(at_once=True)
    assert caplog.messages[4:] == [f"{first} (1 more in 0 s)"]


def test_a_line_that_never_stops_is_summed_up_each_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    log = RepeatLog(LOGGER, clock)
    for _ in range(121):
        log.warning("refused")
        clock.now += 1.0
        log.settle()
    assert caplog.messages == [
        "refused",
        "refused (59 more in 59 s)",
        "refused",
        "refused (59 more in 59 s)",
        "refused",
    ]


def test_lines_that_differ_are_bounded_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    log = RepeatLog(LOGGER, Clock())
    for number in range(1000):
        log.warning("media socket of %s refused", number)
    assert caplog.messages == [f"media socket of {number} refused" for number in range(60)]
    assert len(log._repeated) == 200
