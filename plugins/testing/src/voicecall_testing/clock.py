"""Virtual time: an event loop whose clock jumps to the next timer, and a seam that uses this clock.

A test selects it with a fixture::

    @pytest.fixture
    def anyio_backend() -> tuple[str, dict[str, Any]]:
        return virtual_backend

Whenever nothing is ready to run, the clock jumps to the next timer, so ``anyio.sleep(3600)``
takes no real time. While a thread is working, the clock stands still. The loop notices work of
``loop.run_in_executor`` and ``anyio.to_thread`` by itself; for other threads, use
:meth:`VirtualTimeLoop.work_outstanding`, :func:`hold` or :meth:`VirtualTimeLoop.add_busy_check`.
"""

from __future__ import annotations

import asyncio
import base64
import random
import selectors
import threading
import time
import uuid
from asyncio import Future
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from queue import Queue
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["VirtualSeam", "VirtualTimeLoop", "hold", "virtual_backend"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = 1_000.0
"""Loop time at the start, in seconds: not 0, which code might take for "never"."""
EPOCH_MS = 1_767_225_600_000
"""Wall clock of :class:`VirtualSeam` at the start: 2026-01-01T00:00:00Z."""

_POLL = 0.001
_ANYIO_WORKER = "AnyIO worker thread"


_Ready = list[tuple[selectors.SelectorKey, int]]
_Select = Callable[[float | None], _Ready]


class _Selector(selectors.DefaultSelector):
    """The system's selector; the loop decides how long to wait."""

    def __init__(self, wait: Callable[[_Select, float | None], _Ready]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> _Ready:
        return self._wait(super().select, timeout)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time.

    ``socket_wait``: while sockets are open, wait this many real seconds for network activity
    before each jump. With 0, data that has not arrived yet is read after the jump; no wait is
    needed if both ends of a loopback connection are in this loop. ``stall_seconds``: if nothing
    happens for this many real seconds, ``RuntimeError`` is raised. The cause is a deadlock, or a
    thread that waits for a timer of this loop.
    """

    def __init__(self, *, socket_wait: float = 0.0, stall_seconds: float = 30.0) -> None:
        self._now = START
        self._held = 0
        self._held_lock = threading.Lock()
        self._executor_work: set[Future[Any]] = set()
        self._busy_checks: list[Callable[[], bool]] = []
        self.socket_wait = socket_wait
        self.stall_seconds = stall_seconds
        self.jumps = 0
        self._files = _Selector(self._wait)
        super().__init__(self._files)
        # The loop's own wake-up pipe is not one of the program's sockets.
        self._own_files = len(self._files.get_map())

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    # --- work of threads ----------------------------------------------------------------------

    @contextmanager
    def work_outstanding(self) -> Iterator[None]:
        """Keep the clock from jumping inside the block. Usable in any thread; a thread must report
        its result (``call_soon_threadsafe``) before it leaves the block."""
        with self._held_lock:
            self._held += 1
        try:
            yield
        finally:
            with self._held_lock:
                self._held -= 1

    def add_busy_check(self, check: Callable[[], bool]) -> Callable[[], None]:
        """Keep the clock from jumping while ``check()`` is true; returns a function that removes
        the check. For a queue served by a thread:
        ``add_busy_check(lambda: queue.unfinished_tasks > 0)``."""
        self._busy_checks.append(check)
        return lambda: self._busy_checks.remove(check)

    @property
    def busy(self) -> bool:
        """Whether some thread still has to report back."""
        return (
            self._held > 0
            or bool(self._executor_work)
            or any(check() for check in self._busy_checks)
            or any(self._works_for_anyio(thread) for thread in threading.enumerate())
        )

    def _works_for_anyio(self, thread: threading.Thread) -> bool:
        """``anyio.to_thread`` passes work through a queue of its thread, and marks it as done there
        after the result was reported."""
        if thread.name != _ANYIO_WORKER or getattr(thread, "loop", None) is not self:
            return False
        queue = getattr(thread, "queue", None)
        return isinstance(queue, Queue) and queue.unfinished_tasks > 0

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._executor_work.add(future)
        future.add_done_callback(self._executor_work.discard)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        with self.work_outstanding():
            await super().shutdown_default_executor(*args, **kwargs)

    # --- waiting ------------------------------------------------------------------------------

    def _wait(self, select: _Select, timeout: float | None) -> _Ready:
        ready = select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        begun = time.monotonic()
        while timeout is None or self.busy:
            ready = select(_POLL if timeout is not None else 20 * _POLL)
            if ready:
                return ready
            if time.monotonic() - begun > self.stall_seconds:
                raise RuntimeError(
                    f"virtual time stands still: nothing happened for {self.stall_seconds} real"
                    " seconds, and " + ("a thread is busy" if self.busy else "no timer is set")
                )
        open_sockets = len(self._files.get_map()) > self._own_files
        # A thread may have reported back since the last look.
        ready = select(self.socket_wait if open_sockets else 0)
        if not ready:
            self._now += timeout
            self.jumps += 1
        return ready


virtual_backend: tuple[str, dict[str, Any]] = ("asyncio", {"loop_factory": VirtualTimeLoop})
"""Value of an ``anyio_backend`` fixture for tests on virtual time."""


@contextmanager
def hold() -> Iterator[None]:
    """Keep the running loop's clock from jumping; does nothing on another kind of loop.

    For coroutines that wait for a thread: ``with hold(): await future``. Do not wait for a timer
    inside the block.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        yield
        return
    with loop.work_outstanding():
        yield


class VirtualSeam:
    """A :class:`voicecall.seam.Seam` on the clock of an event loop, with seeded randomness.

    ``loop`` is by default the one that runs at the first use. Equal seeds give equal ids, tokens
    and random numbers.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        epoch_ms: int = EPOCH_MS,
    ) -> None:
        self._random = random.Random(seed)
        self._loop = loop
        self._epoch_ms = epoch_ms

    def now_ms(self) -> int:
        return self._epoch_ms + round((self.monotonic() - START) * 1000)

    def set_wall_clock(self, by_ms: int) -> None:
        """Step the wall clock, as if the system time were set; the monotonic clock goes on."""
        self._epoch_ms += by_ms

    def monotonic(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def new_id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def token(self) -> str:
        return base64.urlsafe_b64encode(self._random.randbytes(16)).rstrip(b"=").decode()

    def random(self) -> float:
        return self._random.random()
