"""Jobs and commits that may wait for company, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall.store import Commit, StoredEvent
from voicecall_calls.store import SqliteStore
from voicecall_calls.store.worker import Worker
from voicecall_testing.clock import VirtualSeam, VirtualTimeLoop, virtual_backend
from voicecall_testing.contracts.store import call_record

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


class Session:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def run(self, jobs: Sequence[str]) -> Sequence[str]:
        self.batches.append(list(jobs))
        return jobs

    def settled(self) -> None:
        """Nothing is left to do."""


class Clerk:
    """A worker, and when (in virtual milliseconds from the start) each of its jobs was done."""

    def __init__(self, *, pause_s: float) -> None:
        self.session = Session()
        self.worker: Worker[str] = Worker(
            "test-worker", self._opened, most=8, pause_s=pause_s, patience_s=0.05
        )
        self.done: dict[str, int] = {}

    @contextmanager
    def _opened(self) -> Iterator[Session]:
        yield self.session

    async def do(self, job: str, at_ms: int = 0, *, patient: bool = True) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await anyio.sleep(at_ms / 1000)
        assert await self.worker.submit(job, patient=patient) == job
        self.done[job] = round((loop.time() - start) * 1000)


@asynccontextmanager
async def clerk(*, pause_s: float = 0.0) -> AsyncIterator[Clerk]:
    made = Clerk(pause_s=pause_s)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    forget = loop.add_busy_check(lambda: made.worker.outstanding > 0)
    try:
        await made.worker.start()
        try:
            yield made
        finally:
            await made.worker.stop()
    finally:
        forget()


async def test_a_patient_job_alone_waits_as_long_as_it_may() -> None:
    async with clerk() as it:
        await it.do("alone")
        await it.do("next")
    assert it.done == {"alone": 50, "next": 50}


async def test_patient_jobs_wait_for_the_first_ones_patience() -> None:
    async with clerk() as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.do, "first")
        tasks.start_soon(it.do, "second", 20)
        tasks.start_soon(it.do, "third", 49)
        tasks.start_soon(it.do, "late", 51)
    assert it.session.batches == [["first", "second", "third"], ["late"]]
    assert it.done == {"first": 50, "second": 50, "third": 50, "late": 101}


@pytest.mark.parametrize("pause_s", [0.0, 0.004])
async def test_an_impatient_job_takes_patient_ones_along(pause_s: float) -> None:
    async with clerk(pause_s=pause_s) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.do, "first")
        tasks.start_soon(it.do, "second", 10)
        tasks.start_soon(lambda: it.do("now", 30, patient=False))
        # Its patience counts from when it came, not from that of those who are gone.
        tasks.start_soon(it.do, "after", 31)
    assert it.session.batches == [["first", "second", "now"], ["after"]]
    assert it.done == {"first": 30, "second": 30, "now": 30, "after": 81}


async def test_patient_jobs_can_be_hurried() -> None:
    async with clerk(pause_s=0.004) as it, anyio.create_task_group() as tasks:
        it.worker.hurry()
        tasks.start_soon(it.do, "first")
        tasks.start_soon(it.do, "second", 10)
        await anyio.sleep(0.02)
        it.worker.hurry()
        it.worker.hurry()
        # Whoever comes after it is as patient as ever.
        tasks.start_soon(it.do, "after", 10)
    assert it.session.batches == [["first", "second"], ["after"]]
    assert it.done == {"first": 20, "second": 20, "after": 60}


async def test_a_pause_holds_patient_jobs_up_no_longer_than_impatient_ones() -> None:
    async with clerk(pause_s=0.2) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: it.do("opens", patient=False))
        tasks.start_soon(it.do, "patient", 10)
        tasks.start_soon(lambda: it.do("now", 20, patient=False))
        tasks.start_soon(it.do, "after", 210)
    assert it.session.batches == [["opens"], ["patient", "now"], ["after"]]
    assert it.done == {"opens": 0, "patient": 200, "now": 200, "after": 400}


async def test_what_is_patient_does_not_count_as_the_threads_work() -> None:
    async with clerk() as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.do, "patient")
        await anyio.sleep(0.04)
        assert it.session.batches == []
        # Else virtual time would stand still for a job that waits for it.
        assert it.worker.outstanding == 0
    assert it.done == {"patient": 50}


async def test_stopping_hands_over_what_is_patient() -> None:
    async with clerk() as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.do, "first")
        tasks.start_soon(it.do, "second", 10)
        await anyio.sleep(0.02)
        await it.worker.stop()
        assert it.worker.outstanding == 0
    assert it.session.batches == [["first", "second"]]
    assert it.done == {"first": 20, "second": 20}


async def test_a_cancelled_waiter_leaves_its_patient_job() -> None:
    async with clerk() as it:
        with anyio.move_on_after(0.01):
            await it.do("left behind")
        await it.do("next", patient=False)
    assert it.session.batches == [["left behind", "next"]]
    assert it.done == {"next": 0}


async def test_patient_commits_keep_their_order_and_survive_closing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, VirtualSeam())
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    forget = loop.add_busy_check(lambda: store.outstanding > 0)

    def commit(text: str, *, patient: bool) -> Commit:
        event = StoredEvent(1, text, {})
        record = call_record(metadata={"said": text})
        return Commit(record=record, events=[event], patient=patient)

    async with anyio.create_task_group() as tasks:
        async with store.lifespan():
            start = loop.time()
            await store.commit(commit("one", patient=True))
            assert round((loop.time() - start) * 1000) == 50
            tasks.start_soon(store.commit, commit("two", patient=True))
            await anyio.sleep(0.03)
            await store.commit(commit("three", patient=False))
            assert round((loop.time() - start) * 1000) == 80
            tasks.start_soon(store.commit, commit("four", patient=True))
            await anyio.sleep(0.01)
    async with store.lifespan():
        assert [event.type for event in await store.events("call-1")] == [
            "one",
            "two",
            "three",
            "four",
        ]
        record = await store.load("call-1")
    forget()
    assert record is not None
    assert record.metadata == {"said": "four"}
