"""Run work in a thread that holds up neither a stop nor the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

__all__ = ["aside"]

T = TypeVar("T")


async def aside(work: Callable[[], T], name: str) -> T:
    """Run ``work()`` in a daemon thread called ``name`` and return (or raise) its outcome. When
    cancelled, it abandons the thread."""
    # Not anyio's threads: they are not daemons, so the interpreter would wait for them at exit.
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(tell: Callable[[], None]) -> None:
        if not outcome.done():
            tell()

    def run() -> None:
        try:
            tell = partial(outcome.set_result, work())
        except BaseException as error:  # noqa: BLE001 (raised again where it is awaited)
            tell = partial(outcome.set_exception, error)
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, tell)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome
