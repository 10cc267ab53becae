"""A voice model on a call that is being ended, while the carrier has yet to hang up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import telephony as tel
from voicecall.errors import CallNotReady, ProviderUnavailable
from voicecall.hosting import ToolCall as ToolUse
from voicecall.hosting import ToolSpec
from voicecall.realtime import (
    Delegation,
    RealtimeCapabilities,
    ResponseDone,
    SessionReset,
    ToolCall,
)
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.fakes import ScriptedSpeech
from voicecall_testing.harness import Phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

DOWN = ProviderUnavailable("down", provider="fake")
CONSULT = "voicecall_agent_consult"
LOOKUP: dict[str, Any] = {
    "type": "function",
    "name": "lookup",
    "description": "Look something up.",
    "parameters": {"type": "object", "properties": {}},
}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def answered(phone: Phone) -> None:
    await phone.dial()
    await phone.answer()
    await phone.settle(0.1)


@asynccontextmanager
async def being_ended(phone: Phone) -> AsyncIterator[None]:
    """The end of the call is asked for, and the carrier refuses to hang up for a while."""
    phone.carrier.fail(tel.Hangup, *[DOWN] * 9)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(phone.operations.end, phone.record.call_id)
        await phone.settle(0.05)
        assert phone.record.ending is not None
        yield
        assert phone.record.live
        tasks.cancel_scope.cancel()


async def test_what_the_model_begins_is_not_heard(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.speak("A long story.", 4000)
        await phone.settle(1)
        async with being_ended(phone):
            before = len(phone.socket.audio_sent)
            # The rest of what it was saying, and an answer.
            model.current.write("item-1", 1000)
            model.current.hears("Wait, one more question!")
            model.current.speak("Of course, go ahead.", 1000)
            await phone.settle(3)
            assert len(phone.socket.audio_sent) == before
            (_, story), said = phone.said
            assert "A long story.".startswith(story)
            # The caller's words are kept.
            assert said == ("user", "Wait, one more question!")


async def test_no_tool_is_begun(tmp_path: Path) -> None:
    used: list[str] = []

    async def look(arguments: Mapping[str, Any], use: ToolUse) -> Any:
        used.append("lookup")
        return "found"

    tool = ToolSpec("lookup", "Look something up.", {"type": "object"}, look)
    model = ScriptedRealtime()
    config = {"tools": [LOOKUP]}
    async with open_realtime(tmp_path, model, tools=[tool], realtime=config) as phone:
        await answered(phone)
        async with being_ended(phone):
            model.current.tell(
                ToolCall("t1", "lookup", {}), ToolCall("t2", CONSULT, {"question": "Why?"})
            )
            await phone.settle(3)
            ended = {"error": "the call is being ended"}
            assert model.current.results == [("t1", ended, False), ("t2", ended, False)]
        assert used == []
        assert phone.agent.turns == []


async def test_an_agent_that_was_asked_before_is_stopped(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        # It would go on to use its own tools.
        phone.agent.then(5.0, "Sunny.")
        model.current.tell(ToolCall("t1", CONSULT, {"question": "What is the weather like?"}))
        await phone.settle(0.5)
        async with being_ended(phone):
            await phone.settle(0.5)
            ((_, heard),) = phone.agent.settled
            assert heard == ""
            assert model.current.results == []


async def test_nothing_that_the_model_hands_over_is_asked_about(tmp_path: Path) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(delegation=True))
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        async with being_ended(phone):
            model.current.tell(Delegation("d1", "Find out."))
            await phone.settle(3)
        assert phone.agent.turns == []


async def test_a_forced_answer_is_not_begun_any_more(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    config = {"consultPolicy": "always"}
    async with open_realtime(tmp_path, model, realtime=config, fillerAfterMs=500) as phone:
        await answered(phone)
        phone.agent.then(2.0, "Sunny.")
        model.current.hears("What is the weather like?")
        await phone.settle(0.4)
        assert len(phone.agent.turns) == 1
        async with being_ended(phone):
            await phone.settle(4)
            assert model.current.asked == []


async def test_words_that_come_just_before_the_end_are_not_asked_about(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    config = {"consultPolicy": "always"}
    async with open_realtime(tmp_path, model, realtime=config) as phone:
        await answered(phone)
        model.current.hears("What is the weather like?")
        await phone.settle(0.05)
        async with being_ended(phone):
            await phone.settle(4)
            assert phone.agent.turns == []


async def test_who_had_something_said_is_told(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.idle = True
        call_id = phone.record.call_id
        async with anyio.create_task_group() as tasks:

            async def speak() -> None:
                with pytest.raises(CallNotReady, match="being ended"):
                    await phone.operations.speak(call_id, "A word in between.")
                assert phone.record.ending is not None

            tasks.start_soon(speak)
            await phone.settle(0.1)
            async with being_ended(phone):
                await phone.settle(0.1)
        assert phone.said == []


@pytest.mark.parametrize("how", ["lost", "reset", "failed", "keys"])
async def test_a_model_is_asked_for_nothing(tmp_path: Path, how: str) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.hears("Are you there?")
        await phone.settle(0.1)
        async with being_ended(phone):
            if how == "lost":
                model.current.end()
            elif how == "reset":
                model.current.tell(SessionReset())
            elif how == "failed":
                model.current.tell(ResponseDone("r1", "failed", "overloaded"))
            else:
                phone.socket.press("5")
            await phone.settle(4)
            assert [session.asked for session in model.sessions] == [[]] * len(model.sessions)
            assert phone.said == [("user", "Are you there?")]


async def test_no_last_words_are_begun(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        async with being_ended(phone):
            model.open_errors.append(DOWN)
            model.current.end()
            await phone.settle(4)
            assert phone.socket.audio_sent == b""
        assert phone.carrier.performed_of(tel.Speak) == []
