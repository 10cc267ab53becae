"""The property tests of the store, on PostgreSQL: the same model, the same records."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicecall.model import CallRecord
from voicecall.seam import SystemSeam
from voicecall.store import Commit
from voicecall_calls.store.columns import escaped, unescaped
from voicecall_calls.store.postgres import PostgresStore

from .postgres_server import Server
from .test_store_model import Model, agree, commits, outcomes, records

pytestmark = [pytest.mark.integration, pytest.mark.postgres]

ON_A_SERVER = settings(max_examples=12)


@given(st.text(st.sampled_from("\x00\x01\x02a")))
def test_escaped_text_comes_back(text: str) -> None:
    assert "\x00" not in escaped(text)
    assert unescaped(escaped(text)) == text


@given(record=records)
@ON_A_SERVER
def test_records_survive_reopening(postgres_server: Server, record: CallRecord) -> None:
    url = postgres_server.new_database()

    async def scenario(directory: Path) -> None:
        async with (store := PostgresStore(url, directory, SystemSeam())).lifespan():
            await store.commit(Commit(record=record))
        async with (store := PostgresStore(url, directory, SystemSeam())).lifespan():
            assert await store.load(record.call_id) == record
            assert await store.live() == ([record] if record.live else [])
            for alias in record.aliases:
                assert await store.find(record.provider, alias) == record

    with tempfile.TemporaryDirectory() as name:
        anyio.run(scenario, Path(name))


@given(groups=st.lists(st.lists(commits(), max_size=4), max_size=5))
@ON_A_SERVER
def test_the_store_is_a_few_dictionaries(
    postgres_server: Server, groups: list[list[Commit]]
) -> None:
    url = postgres_server.new_database()

    async def scenario(directory: Path) -> None:
        model = Model()
        async with (store := PostgresStore(url, directory, SystemSeam())).lifespan():
            for group in groups:
                assert await outcomes(store, group) == [model.commit(commit) for commit in group]
            await agree(store, model)

    with tempfile.TemporaryDirectory() as name:
        anyio.run(scenario, Path(name))
