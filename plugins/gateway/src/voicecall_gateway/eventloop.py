"""The gateway's event loop: uvloop with timers that never fire early."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable
from contextvars import Context
from typing import TypeVarTuple

import uvloop

__all__ = ["new_event_loop"]

Args = TypeVarTuple("Args")


class _Loop(uvloop.Loop):
    """uvloop rounds timers to whole milliseconds, so less than half a millisecond means at once.
    Code that then looks at the clock and waits for the rest (anyio's scopes do, 300 times) keeps
    the processor busy until the time is over. These timers are rounded up instead."""

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        left_ms = math.ceil((when - self.time()) * 1000)
        return self.call_later(left_ms / 1000, callback, *args, context=context)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A new loop. The audio of many calls costs about a seventh less than on asyncio's own loop."""
    # io_uring's polling kernel thread would compete with the gateway for the same core.
    os.environ.setdefault("UV_USE_IO_URING", "0")
    return _Loop()
