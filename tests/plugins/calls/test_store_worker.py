"""The store's worker thread: failing sessions, cancelled callers, batches, stopping."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import anyio
import pytest

from voicecall.errors import StoreError
from voicecall_calls.store.worker import Worker

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

Job = Callable[[], Any]


class Session:
    def __init__(self) -> None:
        self.batches: list[int] = []
        self.settled_error: Exception | None = None

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        self.batches.append(len(jobs))
        return [job() for job in jobs]

    def settled(self) -> None:
        if self.settled_error:
            raise self.settled_error


def worker_of(session: Session, *, most: int = 8, pause_s: float = 0.0) -> Worker[Job]:
    @contextmanager
    def opened() -> Iterator[Session]:
        yield session

    return Worker("test-worker", opened, most=most, pause_s=pause_s)


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


async def test_jobs_are_answered_and_the_thread_ends() -> None:
    worker = worker_of(Session())
    await worker.start()
    assert await worker.submit(threading.get_ident) != threading.get_ident()
    assert "test-worker" in names()
    await worker.stop()
    await worker.stop()
    assert "test-worker" not in names()
    assert worker.outstanding == 0
    with pytest.raises(StoreError, match="not open"):
        await worker.submit(threading.get_ident)


async def test_a_session_that_cannot_be_entered() -> None:
    def broken() -> AbstractContextManager[Session]:
        raise StoreError("cannot open")

    worker: Worker[Job] = Worker("test-worker", broken, most=8)
    with pytest.raises(StoreError, match="cannot open"):
        await worker.start()
    assert "test-worker" not in names()
    assert worker.outstanding == 0


async def test_a_failing_batch_is_told_and_the_next_one_works() -> None:
    worker = worker_of(Session())
    await worker.start()

    def fail() -> None:
        raise ZeroDivisionError("in the thread")

    told: list[Exception] = []

    async def ask() -> None:
        try:
            await worker.submit(fail)
        except ZeroDivisionError as error:
            told.append(error)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
    assert [str(error) for error in told] == ["in the thread"] * 3
    assert await worker.submit(lambda: 5) == 5
    await worker.stop()


async def test_a_broken_session_fails_those_who_come_and_the_stop() -> None:
    session = Session()
    session.settled_error = MemoryError("broken")
    worker = worker_of(session)
    await worker.start()
    assert await worker.submit(lambda: 1) == 1
    with pytest.raises(MemoryError, match="broken"):
        await worker.submit(lambda: 2)
    with pytest.raises(MemoryError, match="broken"):
        await worker.stop()
    assert "test-worker" not in names()
    assert worker.outstanding == 0


async def test_a_start_that_is_cancelled_leaves_no_thread() -> None:
    entered = threading.Event()
    release = threading.Event()
    left = threading.Event()

    @contextmanager
    def slow() -> Iterator[Session]:
        entered.set()
        release.wait()
        yield Session()
        left.set()

    worker: Worker[Job] = Worker("test-worker", slow, most=8)
    async with anyio.create_task_group() as group:
        group.start_soon(worker.start)
        await anyio.to_thread.run_sync(entered.wait)
        group.cancel_scope.cancel()
        release.set()
    assert left.is_set()
    assert "test-worker" not in names()
    assert worker.outstanding == 0


async def test_a_start_that_fails_fails_those_who_came_meanwhile() -> None:
    entered = threading.Event()
    release = threading.Event()

    def broken() -> AbstractContextManager[Session]:
        entered.set()
        release.wait()
        raise StoreError("cannot open")

    worker: Worker[Job] = Worker("test-worker", broken, most=8)
    told: list[str] = []

    async def ask() -> None:
        try:
            await worker.submit(int)
        except StoreError as error:
            told.append(str(error))

    async with anyio.create_task_group() as group:
        starting = anyio.CancelScope()

        async def start() -> None:
            with starting:
                await worker.start()

        group.start_soon(start)
        await anyio.to_thread.run_sync(entered.wait)
        group.start_soon(ask)
        await anyio.lowlevel.checkpoint()
        # Whoever is cancelled is not told of what he does not wait for any more.
        starting.cancel()
        release.set()
        with anyio.fail_after(60):
            while not told or worker.outstanding:
                await anyio.sleep(0.001)
    assert told == ["the call store is not open"]
    assert "test-worker" not in names()


async def test_a_stop_that_is_cancelled_comes_to_its_end() -> None:
    worker = worker_of(Session())
    await worker.start()
    results: list[Any] = []

    async def ask() -> None:
        results.append(await worker.submit(lambda: "done"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.lowlevel.checkpoint()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await worker.stop()
        assert worker.outstanding == 0
    assert results == ["done"]
    assert "test-worker" not in names()


async def test_jobs_before_the_stop_are_done() -> None:
    session = Session()
    worker = worker_of(session, most=4)
    await worker.start()
    gate = threading.Event()
    done: list[int] = []

    async def one(n: int) -> None:
        done.append(await worker.submit(lambda: n))

    async with anyio.create_task_group() as group:
        group.start_soon(worker.submit, gate.wait)
        for n in range(10):
            group.start_soon(one, n)
        while worker.outstanding < 11:
            await anyio.lowlevel.checkpoint()
        group.start_soon(worker.stop)
        await anyio.lowlevel.checkpoint()
        gate.set()
    assert done == list(range(10))
    assert max(session.batches) <= 4
    assert worker.outstanding == 0


async def test_jobs_of_one_round_of_the_loop_are_one_batch() -> None:
    session = Session()
    worker = worker_of(session, most=8)
    await worker.start()
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(worker.submit, int)
    assert session.batches == [5]
    await worker.stop()


async def test_batches_are_a_pause_apart() -> None:
    session = Session()
    worker = worker_of(session, pause_s=0.2)
    await worker.start()
    await worker.submit(int)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.submit, int)
        await anyio.sleep(0.02)
        tasks.start_soon(worker.submit, int)
    assert session.batches == [1, 2]
    await worker.stop()


async def test_jobs_that_wait_for_the_pause_are_done_at_the_stop() -> None:
    worker = worker_of(Session(), pause_s=3600)
    await worker.start()
    with anyio.fail_after(60):
        # The first one waits for nothing.
        await worker.submit(int)
    results: list[Any] = []

    async def late() -> None:
        results.append(await worker.submit(lambda: "done"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(late)
        await anyio.sleep(0.02)
        await worker.stop()
    assert results == ["done"]
    assert worker.outstanding == 0
