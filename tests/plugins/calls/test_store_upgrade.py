"""A database file with an earlier schema version is upgraded and used."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from voicecall.seam import SystemSeam
from voicecall_calls.store import SqliteStore

from .upgrading import Check, check_refused_apart, check_upgrade

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.mark.parametrize("check", [check_upgrade, check_refused_apart])
async def test_a_file_of_an_earlier_version(tmp_path: Path, check: Check) -> None:
    def execute(statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(tmp_path / "calls.db", isolation_level=None)) as other:
            return other.execute(statement).fetchall()

    await check(lambda: SqliteStore(tmp_path, SystemSeam()), execute)
