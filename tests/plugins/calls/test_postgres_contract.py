"""The PostgreSQL store against the conformance suite, on a real server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from voicecall.seam import SystemSeam
from voicecall.store import CallStore
from voicecall_calls.store.postgres import PostgresStore
from voicecall_testing.contracts.store import StoreContract

pytestmark = [pytest.mark.contract, pytest.mark.postgres, pytest.mark.anyio]


class TestPostgresStore(StoreContract):
    @pytest.fixture
    def new_store(self, tmp_path: Path, database_url: str) -> Callable[[], CallStore]:
        return lambda: PostgresStore(database_url, tmp_path / "journal", SystemSeam())
