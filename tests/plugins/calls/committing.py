"""Commits that wait together while the writer is held up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import anyio

from voicecall.errors import StoreError
from voicecall.store import Commit
from voicecall_calls.store.sqlstore import SqlStore

__all__ = ["together", "until_outstanding"]


async def until_outstanding(store: SqlStore, number: int) -> None:
    while store.outstanding != number:
        await anyio.lowlevel.checkpoint()


async def together(
    store: SqlStore, held_up: AbstractContextManager[None], commits: Sequence[Commit]
) -> list[object]:
    """Commit all while the writer is held up by the first; for each, None or its error."""
    outcomes: list[object] = [None] * len(commits)

    async def one(index: int) -> None:
        try:
            await store.commit(commits[index])
        except StoreError as error:
            outcomes[index] = error

    async with anyio.create_task_group() as group:
        with held_up:
            for index in range(len(commits)):
                group.start_soon(one, index)
            await until_outstanding(store, len(commits))
    return outcomes
