"""The SQLite store against the store contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from voicecall.seam import SystemSeam
from voicecall.store import CallStore
from voicecall_calls.store import SqliteStore
from voicecall_testing.contracts.store import StoreContract

pytestmark = [pytest.mark.contract, pytest.mark.anyio]


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def new_store(self, tmp_path: Path) -> Callable[[], CallStore]:
        return lambda: SqliteStore(tmp_path / "store", SystemSeam())
