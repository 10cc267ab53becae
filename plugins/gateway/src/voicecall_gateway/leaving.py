"""The end of the process, which nobody's thread or task holds up."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator

__all__ = ["LEAVE_SECONDS", "leave"]

LEAVE_SECONDS = 5.0
"""What an event loop and an interpreter may take to close when all work is done."""
_TELLING_S = 0.5

_once = threading.Lock()
_log = logging.getLogger("voicecall.gateway")


def leave(status: int, within_s: float) -> None:
    """End this process with ``status`` in ``within_s`` seconds, unless it ends by itself. It waits
    for threads of all libraries otherwise, and its event loop for all tasks: a call that hangs in
    one of them would keep it alive. Of several, the first to be due counts."""

    def tell() -> None:
        time.sleep(within_s)
        if _once.acquire(blocking=False):
            busy = ", ".join(_busy_threads()) or "no thread but its own"
            _log.warning("the process does not end by itself, and is ended; still busy: %s", busy)

    def end() -> None:
        # By itself: the log may be what hangs.
        time.sleep(within_s + _TELLING_S)
        os._exit(status)

    # Both now: once the interpreter has begun to end, no thread can be started.
    for work in (tell, end):
        threading.Thread(target=work, name="leaving", daemon=True).start()


def _busy_threads() -> Iterator[str]:
    """Those that the end waits for, and where they are."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or thread.daemon or thread is threading.main_thread():
            continue
        module = frame.f_globals.get("__name__", "?")
        yield f"{thread.name} in {module}.{frame.f_code.co_qualname}"
