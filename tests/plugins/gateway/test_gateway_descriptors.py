"""The watch for a shortage of file descriptors, on virtual time."""

from __future__ import annotations

import errno
import logging
import os
import resource
from typing import Any

import anyio
import pytest

from voicecall_gateway.descriptors import CALM_LOOKS, LOOK_SECONDS, Descriptors, shortage
from voicecall_testing.clock import virtual_backend

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def test_a_shortage_is_told_once_until_it_is_over_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "voicecall.gateway")
    full = "Too many open files"
    # Few are left: they come and go.
    seen = iter([None, full, full, None, full, *[None] * 100])
    descriptors = Descriptors(lambda: next(seen))
    told = (
        "new connections are closed at once (too many open files): raise the limit of the"
        " gateway's process (LimitNOFILE, ulimit -n)"
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(descriptors.watch)
        await anyio.sleep(LOOK_SECONDS / 2)
        assert list(descriptors.problems()) == []
        for _ in range(3 + CALM_LOOKS):
            await anyio.sleep(LOOK_SECONDS)
            assert list(descriptors.problems()) == [told]
        await anyio.sleep(LOOK_SECONDS)
        assert list(descriptors.problems()) == []
        tasks.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        told,
        "connections are accepted again",
    ]


async def test_a_shortage_is_what_the_system_says() -> None:
    assert shortage() is None
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        found = shortage()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found == os.strerror(errno.EMFILE)
