"""A thread that runs jobs in batches and returns their results on the event loop."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

import anyio

from voicecall.errors import StoreError

__all__ = ["Worker", "WorkerSession"]

Job = TypeVar("Job")
JobIn = TypeVar("JobIn", contravariant=True)
_Waiting = tuple[Job, asyncio.Future[Any]]


class WorkerSession(Protocol[JobIn]):
    """What the thread holds open while it runs; only the thread touches it."""

    def run(self, jobs: Sequence[JobIn]) -> Sequence[Any]:
        """Run the jobs. Returns a result for each, or the exception to raise to its waiter."""
        ...

    def settled(self) -> None:
        """Called after the results of a batch were delivered."""
        ...


class Worker(Generic[Job]):
    """One thread, from :meth:`start` to :meth:`stop`.

    A batch is whatever is waiting, up to ``most`` jobs; its results are delivered with one
    ``call_soon_threadsafe``. Jobs submitted in one iteration of the event loop are handed over
    together at its end: otherwise the thread would wake up for the first and run it without the
    others. Batches are at least ``pause_s`` seconds apart: a batch has a cost whatever its size.
    """

    def __init__(
        self,
        name: str,
        session: Callable[[], AbstractContextManager[WorkerSession[Job]]],
        *,
        most: int,
        pause_s: float = 0.0,
    ) -> None:
        self._name = name
        self._session = session
        self._most = most
        self._pause_s = pause_s
        self._handed_over = -math.inf
        self._queue: SimpleQueue[_Waiting[Job] | None] = SimpleQueue()
        self._round: list[_Waiting[Job]] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Future[None] | None = None
        self.outstanding = 0
        """Number of requests to the thread that are not answered yet: jobs, starting, stopping.
        Read it on the event loop; it decreases only there, when the results are set."""

    async def start(self) -> None:
        """Start the thread and enter the session in it. Raises what entering it raises."""
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._stopped = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._main, args=(ready,), name=self._name, daemon=True
        )
        self.outstanding += 1
        self._thread.start()
        try:
            await ready
        except BaseException:
            await self.stop()
            raise

    async def submit(self, job: Job) -> Any:
        """Submit a job and wait for its result. If the waiter is cancelled, the job still runs."""
        if self._thread is None or self._loop is None:
            raise StoreError("the call store is not open")
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self._round:
            wait = self._handed_over + self._pause_s - self._loop.time() if self._pause_s else 0
            if wait > 0:
                self._loop.call_later(wait, self._hand_over)
            else:
                self._loop.call_soon(self._hand_over)
        self._round.append((job, future))
        return await future

    def _hand_over(self) -> None:
        jobs, self._round = self._round, []
        self.outstanding += len(jobs)
        if self._loop is not None and self._pause_s:
            self._handed_over = self._loop.time()
        for job in jobs:
            self._queue.put(job)

    async def stop(self) -> None:
        """Accept no more jobs, finish the waiting ones, exit the session and end the thread."""
        if self._thread is None or self._stopped is None:
            return
        thread, self._thread = self._thread, None
        self.outstanding += 1
        self._hand_over()
        self._queue.put(None)
        try:
            with anyio.CancelScope(shield=True):
                await self._stopped
        finally:
            thread.join()

    def _main(self, ready: asyncio.Future[None]) -> None:
        started = False
        failure: BaseException | None = None
        try:
            with self._session() as session:
                started = True
                self._tell([ready], [None])
                while batch := self._next_batch():
                    jobs, futures = zip(*batch, strict=True)
                    self._tell(futures, _run(session, jobs))
                    session.settled()
        except BaseException as error:  # noqa: BLE001  (it is handed to the waiter)
            failure = error
        if not started:
            self._tell([ready], [failure])
            self._drain(StoreError("the call store is not open"))
            failure = None
        elif failure is not None:
            self._drain(failure)
        assert self._stopped is not None
        self._tell([self._stopped], [failure])

    def _next_batch(self) -> list[_Waiting[Job]]:
        """The waiting jobs, at least one; empty if the thread should end."""
        batch: list[_Waiting[Job]] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) == self._most:
                return batch
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch
        if batch:
            self._queue.put(None)
        return batch

    def _drain(self, failure: BaseException) -> None:
        """Fail the jobs submitted until the stop, so that no waiter hangs."""
        while batch := self._next_batch():
            self._tell([future for _, future in batch], [failure] * len(batch))

    def _tell(self, futures: Sequence[asyncio.Future[Any]], outcomes: Sequence[Any]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._settle, futures, outcomes)
        except RuntimeError:
            # The loop is closed: nothing is waiting any more.
            return

    def _settle(self, futures: Sequence[asyncio.Future[Any]], outcomes: Sequence[Any]) -> None:
        self.outstanding -= len(futures)
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def _run(session: WorkerSession[Job], jobs: Sequence[Job]) -> Sequence[Any]:
    try:
        return session.run(jobs)
    except Exception as error:  # noqa: BLE001  (it is handed to the waiters)
        return [error] * len(jobs)
