"""What is left of a call that is over, on virtual time: nothing that a collection does not free."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from voicecall.model import MediaPath
from voicecall_calls.conversation.base import Conversation
from voicecall_calls.engine.lane import CallLane
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.harness import Phone, open_phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


@asynccontextmanager
async def opened(
    directory: Path, media: MediaPath, model: ScriptedRealtime
) -> AsyncIterator[Phone]:
    if media is MediaPath.REALTIME:
        async with open_realtime(directory, model) as phone:
            yield phone
    else:
        async with open_phone(directory, media=media) as phone:
            yield phone


async def one_call(phone: Phone) -> tuple[weakref.ref[CallLane], weakref.ref[Conversation]]:
    """A call from the first ring to its end."""
    await phone.call_in()
    await phone.settle(10)
    lane = phone.lane
    assert lane.conversation is not None
    parts = weakref.ref(lane), weakref.ref(lane.conversation)
    del lane
    await phone.hang_up()
    await phone.settle(5)
    assert not phone.engine.lanes
    return parts


@pytest.mark.parametrize("media", MediaPath)
async def test_nothing_holds_a_call_that_is_over(tmp_path: Path, media: MediaPath) -> None:
    model = ScriptedRealtime()
    async with opened(tmp_path, media, model) as phone:
        lane, conversation = await one_call(phone)
        # The far ends of its sockets and sessions.
        for far_ends in (phone.sockets, phone.stt.sessions, model.sessions):
            far_ends.clear()
        gc.collect()
        assert lane() is None
        assert conversation() is None
