"""Fixtures of a real PostgreSQL server, for tests marked ``postgres``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .postgres_server import Server, missing, running


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with running() as server:
        yield server


@pytest.fixture
def database_url(postgres_server: Server) -> str:
    """The URL of an empty database for this test."""
    return postgres_server.new_database()
