"""Ask a question (``continue``) while the test goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from voicecall_testing.harness import Phone

__all__ = ["QUESTION", "asked"]

QUESTION = "What is your name?"


@asynccontextmanager
async def asked(phone: Phone, question: str = QUESTION) -> AsyncIterator[list[str]]:
    """Ask ``question`` in a task. The answer is in the list on leaving, which waits for it."""
    answers: list[str] = []

    async def ask() -> None:
        answers.append(await phone.operations.ask(phone.record.call_id, question))

    async with anyio.create_task_group() as asking:
        asking.start_soon(ask)
        yield answers
