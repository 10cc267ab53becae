"""One service of a plugin: its start is retried, a later failure is not. On virtual time."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from voicecall.errors import ConfigError, VoicecallError
from voicecall_gateway.services import ServiceRunner
from voicecall_testing.clock import virtual_backend

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Stubborn:
    """A service that starts when ``errors`` are used up; ``always``: they never are."""

    name = "phone"

    def __init__(self, *errors: BaseException, always: bool = False) -> None:
        self.errors = list(errors)
        self.always = always
        self.tried: list[float] = []
        self.crash = anyio.Event()
        self.stopped = False

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        self.tried.append(anyio.current_time())
        if self.errors:
            raise self.errors[0] if self.always else self.errors.pop(0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._work)
            yield
            tasks.cancel_scope.cancel()
            self.stopped = True

    async def _work(self) -> None:
        await self.crash.wait()
        raise VoicecallError("the store is gone")

    async def drain(self) -> None:
        return None

    def problems(self) -> Sequence[str]:
        return []

    def waits(self) -> list[float]:
        """Seconds between the attempts."""
        return [round(b - a, 3) for a, b in zip(self.tried, self.tried[1:], strict=False)]


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level]


async def test_a_service_that_cannot_start_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    away, taken = VoicecallError("the store is away"), ConfigError("port 3334 is in use")
    service = Stubborn(away, away, taken, SystemExit(1))
    runner = ServiceRunner("p", service)
    async with anyio.create_task_group() as tasks:
        runner.launch(tasks)
        await runner.settled.wait()
        assert runner.problems() == ["phone cannot start: the store is away"]
        await anyio.sleep(4)
        assert runner.problems() == ["phone cannot start: port 3334 is in use"]
        await anyio.sleep(60)
        assert (runner.running, runner.problems()) == (True, [])
        await runner.stop()
    assert service.stopped
    assert service.waits() == [1, 2, 4, 8]
    # What has been said is not said again.
    assert said(caplog, logging.ERROR) == [
        "phone cannot start: the store is away; it is tried again",
        "phone cannot start: port 3334 is in use; it is tried again",
        "the service phone of p failed",
        "phone cannot start: internal error (SystemExit), see the log; it is tried again",
    ]
    assert said(caplog, logging.INFO) == ["phone has started after all"]


async def test_attempts_are_a_minute_apart_at_last_and_end_with_the_service(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Stubborn(KeyError("x"), always=True)
    runner = ServiceRunner("p", service)
    async with anyio.create_task_group() as tasks:
        runner.launch(tasks)
        await anyio.sleep(300)
        assert runner.live() == 0
        await runner.stop()
    assert service.waits() == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert said(caplog, logging.ERROR) == [
        "the service phone of p failed",
        "phone cannot start: internal error (KeyError), see the log; it is tried again",
    ]


async def test_nothing_is_tried_again_while_the_gateway_drains() -> None:
    service = Stubborn(VoicecallError("the store is away"))
    runner = ServiceRunner("p", service)
    async with anyio.create_task_group() as tasks:
        runner.launch(tasks)
        await runner.settled.wait()
        await runner.drain()
        await anyio.sleep(100)
        await runner.stop()
    assert (len(service.tried), runner.drained) == (1, True)


async def test_one_that_broke_while_it_ran_is_not_tried_again() -> None:
    service = Stubborn()
    runner = ServiceRunner("p", service)
    async with anyio.create_task_group() as tasks:
        runner.launch(tasks)
        await runner.settled.wait()
        service.crash.set()
        await anyio.sleep(100)
        assert runner.problems() == ["phone stopped: the store is gone"]
        await runner.stop()
    assert len(service.tried) == 1


class Vague(Stubborn):
    """A service whose answers violate the contract."""

    told: Any = ()
    count: Any = 0

    async def drain(self) -> None:
        raise SystemExit(1)

    def problems(self) -> Any:
        return self._given(self.told)

    def live(self) -> Any:
        return self._given(self.count)

    def _given(self, answer: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def test_one_that_tells_its_state_wrongly_is_not_ready_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Vague()
    runner = ServiceRunner("p", service)
    async with anyio.create_task_group() as tasks:
        runner.launch(tasks)
        await runner.settled.wait()
        for told, kind in (("no", "TypeError"), ([KeyError("x")], "TypeError"), (5, "TypeError")):
            service.told = told
            assert runner.problems() == [f"phone cannot report its state ({kind})"]
        service.told = SystemExit(1)
        assert runner.problems() == ["phone cannot report its state (SystemExit)"]
        assert "problems() returns 'no', not a sequence of strings" in caplog.text
        for count in ("1", None, SystemExit(1)):
            service.count = count
            assert runner.live() is None
        assert "live() returns str, not a number" in caplog.text
        await runner.drain()
        assert not runner.drained
        await runner.stop()


class Unhurried(Stubborn):
    """A service that closes slowly and cannot be drained."""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        yield
        await anyio.sleep(5)
        self.stopped = True

    async def drain(self) -> None:
        raise KeyError("calls")


async def test_a_stop_waits_until_the_service_is_closed() -> None:
    service = Unhurried()
    runner = ServiceRunner("fake", service)
    async with anyio.create_task_group() as tasks:
        runner.launch(tasks)
        await runner.settled.wait()
        assert (runner.running, runner.problems()) == (True, [])
        await runner.stop()
        assert service.stopped
        assert (runner.running, runner.problems()) == (False, ["phone has stopped"])


async def test_a_service_that_cannot_be_drained_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner = ServiceRunner("fake", Unhurried())
    async with anyio.create_task_group() as tasks:
        runner.launch(tasks)
        await runner.settled.wait()
        await runner.drain()
        assert not runner.drained
        await runner.stop()
    assert "the service phone did not drain" in caplog.text
    assert "KeyError: 'calls'" in caplog.text
