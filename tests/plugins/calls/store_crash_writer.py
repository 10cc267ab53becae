"""Run as a program, with a directory: for each number read, forks a writer, which prints its pid,
then commits calls numbered from there on for ever and prints each number once acknowledged. When it
was killed, ``over`` is printed."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import anyio

from voicecall.model import CallRecord, CallState, Direction, Speaker, TranscriptEntry
from voicecall.seam import SystemSeam
from voicecall.store import Commit, DialReservation, RecordedReply, StoredEvent, TurnRow
from voicecall_calls.store import SqliteStore


def numbered(number: int) -> Commit:
    """A commit that puts a row with this number into every table."""
    call_id = str(number)
    record = CallRecord(
        call_id=call_id,
        provider="carrier",
        direction=Direction.INBOUND,
        state=CallState.ACTIVE,
        from_number="+15550001111",
        to_number="+15550002222",
        started_at=number,
        aliases=(call_id,),
        transcript=(TranscriptEntry(number, Speaker.USER, call_id),),
    )
    return Commit(
        record=record,
        events=[StoredEvent(number, "Number", {"number": number})],
        processed_keys=[call_id],
        reply=RecordedReply(call_id, SystemSeam().now_ms(), 200, b"", "text/plain"),
        reservation=DialReservation(call_id, call_id, number),
        turns=[TurnRow(call_id=call_id, turn_id="t", kind="reply", at=number)],
    )


async def write(directory: Path, start: int) -> None:
    numbers = itertools.count(start)
    store = SqliteStore(directory, SystemSeam())

    async def one_after_the_other() -> None:
        for number in numbers:
            await store.commit(numbered(number))
            os.write(1, b"%d\n" % number)

    async with store.lifespan(), anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one_after_the_other)


if __name__ == "__main__":
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.write(1, b"%d\n" % os.getpid())
            anyio.run(write, Path(sys.argv[1]), int(line))
        os.waitpid(pid, 0)
        os.write(1, b"over\n")
