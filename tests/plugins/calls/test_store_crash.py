"""kill -9 at random moments: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
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


def run_and_kill(directory: Path, start: int, delay: float) -> set[str]:
    """The numbers that the writer acknowledged before it was killed."""
    command = [sys.executable, str(WRITER), str(directory), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        first = writer.stdout.readline()
        assert first
        time.sleep(delay)
        writer.kill()
        rest = writer.stdout.read()
    # A line without its end was cut by the kill; the number in it may be cut too.
    return set((first + rest).decode().rpartition("\n")[0].split())


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
    for _ in range(kills):
        fresh = run_and_kill(tmp_path, start, seed.uniform(0, 0.1))
        acknowledged |= fresh
        # Before anyone opens it: the kill's leftovers must not be needed.
        stored = stored_numbers(tmp_path)
        assert fresh
        assert acknowledged <= stored
        start = anyio.run(check_newest, tmp_path)
    for line in (tmp_path / "calls.jsonl").read_bytes().splitlines()[:-1]:
        assert json.loads(line)["callId"] in stored
