"""kill -9 at random moments: all acknowledged commits are stored, and none is stored in part."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from io import BufferedReader
from pathlib import Path

import anyio
import pytest

from voicecall.seam import SystemSeam
from voicecall_calls.store import SqliteStore

pytestmark = pytest.mark.integration

WRITER = Path(__file__).with_name("store_crash_writer.py")
COLUMNS = (
    ("calls", "call_id"),
    ("call_aliases", "provider_call_id"),
    ("transcript", "call_id"),
    ("events", "call_id"),
    ("processed_keys", "key"),
    ("replay_keys", "key"),
    ("dial_reservations", "key"),
    ("turns", "call_id"),
)


def run_and_kill(writers: subprocess.Popen[bytes], start: int, delay: float) -> set[str]:
    """The numbers that a writer acknowledged before it was killed."""
    assert writers.stdin is not None
    assert isinstance(writers.stdout, BufferedReader)
    writers.stdin.write(b"%d\n" % start)
    writers.stdin.flush()
    pid = int(writers.stdout.readline())
    first = writers.stdout.readline()
    assert first != b"over\n"
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    rest = b""
    while not rest.endswith(b"over\n"):
        piece = writers.stdout.read1()
        assert piece
        rest += piece
    # A line without its end was cut by the kill; the number in it may be cut too.
    return set((first + rest.removesuffix(b"over\n")).decode().rpartition("\n")[0].split())


def stored_numbers(directory: Path) -> set[str]:
    """The numbers in the database; every table must have the same."""
    connection = sqlite3.connect(directory / "calls.db")
    try:
        found = {
            table: [row[0] for row in connection.execute(f"SELECT {column} FROM {table}")]
            for table, column in COLUMNS
        }
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()
    numbers = set(found["calls"])
    for table, values in found.items():
        assert len(values) == len(numbers), table
        assert set(values) == numbers, table
    return numbers


async def check_newest(directory: Path) -> int:
    """Open the store as the gateway does; the number after the newest stored one."""
    store = SqliteStore(directory, SystemSeam())
    async with store.lifespan():
        newest = (await store.recent(1))[0]
        assert newest.transcript[0].text == newest.call_id
        assert await store.is_processed(newest.call_id)
        return int(newest.call_id) + 1


@pytest.mark.parametrize("kills", [15, pytest.param(300, marks=pytest.mark.soak)])
def test_kill_nine(tmp_path: Path, kills: int) -> None:
    seed = random.Random(kills)
    acknowledged: set[str] = set()
    start = 0
    command = [sys.executable, str(WRITER), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writers:
        for _ in range(kills):
            fresh = run_and_kill(writers, start, seed.uniform(0, 0.1))
            acknowledged |= fresh
            # Before anyone opens it: the kill's leftovers must not be needed.
            stored = stored_numbers(tmp_path)
            assert fresh
            assert acknowledged <= stored
            start = anyio.run(check_newest, tmp_path)
    for line in (tmp_path / "calls.jsonl").read_bytes().splitlines()[:-1]:
        assert json.loads(line)["callId"] in stored
