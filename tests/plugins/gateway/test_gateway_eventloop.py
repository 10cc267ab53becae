"""The gateway's event loop: timers are never early."""

from __future__ import annotations

import asyncio

import pytest

from voicecall_gateway.eventloop import new_event_loop

pytestmark = pytest.mark.unit


def test_no_timer_comes_before_its_time() -> None:
    # A task that is woken too early waits for the rest, again and again, until it is time.
    early: list[float] = []

    async def wait(seconds: float) -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[float] = loop.create_future()
        when = loop.time() + seconds
        loop.call_at(when, lambda: over.set_result(loop.time()))
        if (left := when - await over) > 1e-6:
            early.append(left)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        for tenths in range(10):
            runner.run(wait(0.002 + tenths / 10_000))
        runner.run(wait(-1.0))
    assert early == []
