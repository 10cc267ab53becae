"""A PostgreSQL database with an earlier schema version is upgraded and used."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicecall.seam import SystemSeam
from voicecall_calls.store.postgres import PostgresStore

from .postgres_server import Server
from .upgrading import Check, check_refused_apart, check_upgrade

pytestmark = [pytest.mark.integration, pytest.mark.postgres, pytest.mark.anyio]


@pytest.mark.parametrize("check", [check_upgrade, check_refused_apart])
async def test_a_server_of_an_earlier_version(
    database_url: str, postgres_server: Server, tmp_path: Path, check: Check
) -> None:
    await check(
        lambda: PostgresStore(database_url, tmp_path, SystemSeam()),
        lambda statement: postgres_server.execute(statement, database_url),
    )
