"""The event loop that the gateway runs on: uvloop's, with timers that are never early."""

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
    """uvloop's timers count whole milliseconds, and less than half of one is at once. Whoever
    looks at the clock then and waits for the rest (as a scope of anyio does, 300 times) keeps
    the processor busy until it is over. These timers are late instead, and never early."""

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
    """Audio of many calls costs about a seventh less on it than on asyncio's own."""
    # Not with the kernel's thread that polls for its requests, which would take the core that
    # it shares with us.
    os.environ.setdefault("UV_USE_IO_URING", "0")
    return _Loop()
