"""Commits per second of the SQLite store, with 1 and 32 waiters, with and without fsync.

Run it as a script: ``python tests/bench/bench_store.py [seconds per figure]``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio

from voicecall.model import CallRecord, CallState, DeadlineKind, Direction
from voicecall.seam import SystemSeam
from voicecall.store import Commit, RecordedReply, StoredEvent
from voicecall_calls.store import SqliteStore


def webhook_commit(number: int) -> Commit:
    """What one webhook of a call stores: record, event, dedupe key and reply."""
    call_id = f"call-{number}"
    record = CallRecord(
        call_id=call_id,
        provider="bench",
        direction=Direction.INBOUND,
        state=CallState.RINGING,
        from_number="+15550001111",
        to_number="+15550002222",
        started_at=number,
        aliases=(f"carrier-{number}",),
        provider_call_id=f"carrier-{number}",
        deadlines={DeadlineKind.MAX_DURATION: number, DeadlineKind.UNANSWERED: number},
        metadata={"origin": "bench"},
    )
    return Commit(
        record=record,
        events=[StoredEvent(number, "Ringing", {"at": number, "provider_call_id": "x" * 34})],
        processed_keys=[f"event-{number}"],
        reply=RecordedReply(f"request-{number}", SystemSeam().now_ms(), 200, b"<Response/>", "x"),
    )


def event_commit(number: int) -> Commit:
    """A small transaction: one event and its dedupe key."""
    return Commit(
        events=[StoredEvent(number, "DigitsPressed", {"digits": "1"})],
        processed_keys=[f"event-{number}"],
    )


async def rate(
    make: Callable[[int], Commit], waiters: int, *, fsync: bool, seconds: float
) -> float:
    """Commits per second with this many tasks, each committing one after another."""
    done = 0
    with tempfile.TemporaryDirectory() as name:
        store = SqliteStore(Path(name), SystemSeam(), fsync=fsync)
        async with store.lifespan():
            end = time.monotonic() + seconds

            async def waiter() -> None:
                nonlocal done
                while time.monotonic() < end:
                    done += 1
                    await store.commit(make(done))

            begin = time.monotonic()
            async with anyio.create_task_group() as group:
                for _ in range(waiters):
                    group.start_soon(waiter)
            return done / (time.monotonic() - begin)


def main(seconds: float = 1.0) -> None:
    for label, make in (("event", event_commit), ("webhook", webhook_commit)):
        for fsync in (True, False):
            for waiters in (1, 32):
                job = partial(rate, make, waiters, fsync=fsync, seconds=seconds)
                figure = anyio.run(job)
                mode = "FULL" if fsync else "NORMAL"
                print(f"{label:8} {mode:6} {waiters:3} waiters {figure:10,.0f} commits/s")


if __name__ == "__main__":
    main(*(float(argument) for argument in sys.argv[1:2]))
