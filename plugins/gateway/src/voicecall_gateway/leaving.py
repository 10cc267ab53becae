"""Ending the process even if a thread or task hangs."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator

__all__ = ["LEAVE_SECONDS", "leave"]

LEAVE_SECONDS = 5.0
"""Time for the event loop and the interpreter to close when all work is done."""
_TELLING_S = 0.5

_once = threading.Lock()
_log = logging.getLogger("voicecall.gateway")


def leave(status: int, within_s: float) -> None:
    """End this process with ``status`` in ``within_s`` seconds, unless it ends by itself.

    The interpreter waits for the threads of all libraries and the event loop for all tasks, so a
    hanging one would keep the process alive. Of several calls, the first to be due counts.
    """

    def tell() -> None:
        time.sleep(within_s)
        if _once.acquire(blocking=False):
            busy = ", ".join(_busy_threads()) or "only the main thread"
            _log.warning("the process does not end by itself and is killed; still busy: %s", busy)

    def end() -> None:
        # In a thread of its own, because logging may be what hangs.
        time.sleep(within_s + _TELLING_S)
        os._exit(status)

    # Started now, because no thread can be started once the interpreter shuts down.
    for work in (tell, end):
        threading.Thread(target=work, name="leaving", daemon=True).start()


def _busy_threads() -> Iterator[str]:
    """The threads that the interpreter waits for, and the function in which each one is."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or thread.daemon or thread is threading.main_thread():
            continue
        module = frame.f_globals.get("__name__", "?")
        yield f"{thread.name} in {module}.{frame.f_code.co_qualname}"
