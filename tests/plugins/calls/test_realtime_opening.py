"""A voice model is connected to while the carrier's media socket is on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from voicecall import events as ev
from voicecall.audio import MULAW_8K, PCM16_16K, AudioFormat
from voicecall.errors import CallNotReady, ProviderUnavailable
from voicecall.model import Direction, EndDetail, EndReason
from voicecall.realtime import RealtimeCapabilities
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.fakes import STREAMING
from voicecall_testing.harness import CALLEE, Phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

RINGS_S = 2.0
"""How long the media socket takes in these stories."""
DOWN = ProviderUnavailable("down", provider="scripted")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


@asynccontextmanager
async def ringing(
    tmp_path: Path, model: ScriptedRealtime, *, expects: AudioFormat = MULAW_8K
) -> AsyncIterator[Phone]:
    """A call that is answered, whose socket the test opens."""
    capabilities = replace(STREAMING, codecs=(expects, MULAW_8K))
    unprotected = {"greetingProtectionMs": 0}
    async with open_realtime(
        tmp_path, model, capabilities=capabilities, bargeIn=unprotected
    ) as phone:
        phone.opens_streams = False
        await phone.call_in()
        await phone.settle(RINGS_S)
        yield phone


async def attach(phone: Phone) -> int:
    """The socket comes; when."""
    await phone.engine.issue_tokens(phone.record, ["here I am"])
    await phone.attach("here I am")
    return phone.now()


async def test_the_greeting_waits_for_the_socket_alone(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.open_delay_s = RINGS_S - 0.5
    async with ringing(tmp_path, model) as phone:
        assert len(model.sessions) == 1
        assert model.current.asked == []
        attached = await attach(phone)
        await phone.settle(1.5)
        assert len(model.sessions) == 1
        assert len(model.current.asked) == 1
        (row,) = await phone.rows()
        assert row.first_audio_sent == pytest.approx(attached, abs=20)


async def test_a_model_that_is_slower_than_the_socket_misses_nothing(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.open_delay_s = RINGS_S + 1
    async with ringing(tmp_path, model) as phone:
        await attach(phone)
        await phone.socket.speak(b"\x11" * 800)
        await phone.settle(1.5)
        assert bytes(model.current.audio) == b"\x11" * 800


async def test_nothing_is_asked_of_the_model_before_the_socket(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with ringing(tmp_path, model) as phone:
        with pytest.raises(CallNotReady, match="No active voice model"):
            await phone.operations.speak(phone.record.call_id, "Are you there?")
        assert model.current.asked == []


async def test_a_socket_of_another_format_takes_another_session(tmp_path: Path) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(formats=(PCM16_16K, MULAW_8K)))
    async with ringing(tmp_path, model, expects=PCM16_16K) as phone:
        assert model.current.options.input_format == PCM16_16K
        await attach(phone)
        await phone.settle(0.05)
        assert model.current.options.input_format == MULAW_8K
        assert [len(session.asked) for session in model.sessions] == [0, 1]


async def test_a_session_that_breaks_before_the_socket_is_replaced(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with ringing(tmp_path, model) as phone:
        model.current.end()
        await attach(phone)
        await phone.settle(2)
        assert len(model.sessions) == 2
        assert len(model.current.asked) == 1
        assert [who for who, _ in phone.said] == ["bot"]


async def test_a_model_that_does_not_open_is_told_of_behind_the_socket(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.open_errors.extend([DOWN] * 9)
    async with ringing(tmp_path, model) as phone:
        assert phone.record.live
        assert phone.record.ending is None
        await attach(phone)
        await phone.settle(15)
        assert phone.said == [("bot", phone.config.phrases.failed)]
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_a_call_without_a_socket_leaves_no_session(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with ringing(tmp_path, model) as phone:
        await phone.settle(60)
        assert phone.record.end_detail is EndDetail.STREAM_NEVER_STARTED
        assert not phone.engine.lanes
        (session,) = model.sessions
        with pytest.raises(Exception, match="ended"):
            await session.say("Is anybody there?")


async def test_in_a_flood_of_calls_models_wait_for_the_sockets(tmp_path: Path) -> None:
    """A vendor is not asked for hundreds of sessions at once that may never be needed."""
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, maxConcurrentInboundCalls=100) as phone:
        phone.opens_streams = False

        async def calls(*numbers: int) -> None:
            for number in numbers:
                called = {"provider_call_id": f"flood-{number}", "from_number": f"+1555{number:07}"}
                event = phone.make(
                    ev.Answered, direction=Direction.INBOUND, to_number=CALLEE, **called
                )
                await phone.tell(event)
            await phone.settle(0.1)

        await calls(*range(40))
        assert len(phone.engine.lanes) == 40
        opened = len(model.sessions)
        assert opened == 32
        # The place of one that has its socket, or is over, is free again.
        lanes = list(phone.engine.lanes.values())
        await phone.engine.issue_tokens(lanes[0].record, ["here I am"])
        await phone.attach("here I am", call="flood-0")
        ended = phone.make(ev.CallEnded, provider_call_id="flood-1", reason=EndReason.HANGUP_USER)
        await phone.tell(ended)
        await calls(40, 41, 42)
        assert len(model.sessions) == opened + 2
        # One that has waited is opened with its socket.
        await phone.engine.issue_tokens(lanes[39].record, ["and I"])
        await phone.attach("and I", call="flood-39")
        await phone.settle(0.1)
        assert len(model.sessions) == opened + 3
