"""A phone whose calls are held by a scripted voice model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from voicecall.model import MediaPath
from voicecall.realtime import RealtimeProvider
from voicecall.store import Commit, TurnRow
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.conversation.dialogue import Brain
from voicecall_calls.conversation.realtime import RealtimeConversation, RealtimeModel
from voicecall_calls.engine.lane import CallLane
from voicecall_testing.fakes import STREAMING, ScriptedCarrier
from voicecall_testing.harness import Phone, open_phone

__all__ = ["open_realtime"]


@asynccontextmanager
async def open_realtime(
    directory: Path, model: RealtimeProvider, *, returns_marks: bool = True, **config: Any
) -> AsyncIterator[Phone]:
    async with open_phone(
        directory,
        media=MediaPath.REALTIME,
        carrier=ScriptedCarrier(STREAMING),
        config=config,
        returns_marks=returns_marks,
    ) as phone:
        brain = Brain(phone.agent, "main", None, phone.config.response_timeout_ms / 1000)

        async def keep(row: TurnRow) -> None:
            await phone.store.commit(Commit(turns=(row,)))

        def converse(lane: CallLane) -> Conversation:
            return RealtimeConversation(
                lane,
                phone.carrier,
                RealtimeModel(model),
                brain,
                config=phone.config,
                keep=keep,
                seam=phone.seam,
            )

        phone.engine.conversations = converse
        yield phone
