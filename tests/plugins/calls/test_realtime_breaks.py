"""Voice-model sessions that break: when the next session is asked to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from voicecall.model import CallMode
from voicecall.realtime import (
    ResponseStarted,
    SessionExpiring,
    SessionLost,
    SessionReset,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    Transcript,
)
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.harness import Phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

CONSULT = ToolCall("t1", "voicecall_agent_consult", {"question": "What is the weather like?"})


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def on_the_phone(phone: Phone) -> None:
    await phone.dial()
    await phone.answer()
    await phone.settle(0.1)


async def lose(phone: Phone, model: ScriptedRealtime) -> None:
    model.current.tell(SessionLost("gone", fatal=True))
    await phone.settle(1)
    assert len(model.sessions) == 2


def requests(model: ScriptedRealtime) -> int:
    """How often the new session was asked to go on."""
    assert all(
        kind == "greet" and "Answer what the caller said last" in text
        for kind, text in model.current.asked
    )
    return len(model.current.asked)


async def test_a_caller_who_waits_is_answered_by_the_next_session(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.hears("When do you close?")
        await phone.settle(0.5)
        await lose(phone, model)
        assert requests(model) == 1
        assert model.current.options.history[-1] == ("user", "When do you close?")
        await phone.settle(1)
        assert phone.said[-1][0] == "bot"


async def test_words_that_came_to_no_text_are_asked_for_again(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.tell(SpeechStarted(0), SpeechStopped(900))
        await phone.settle(0.5)
        await lose(phone, model)
        assert requests(model) == 1


@pytest.mark.parametrize("sounds", [False, True])
async def test_an_answer_that_breaks_off_is_taken_up_again(tmp_path: Path, sounds: bool) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        if sounds:
            model.current.write("item-1", 500)
        else:
            model.current.tell(ResponseStarted("response-1"))
        await phone.settle(0.1)
        await lose(phone, model)
        assert requests(model) == 1


async def test_the_pieces_of_a_text_that_breaks_off_are_one_text(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.write("item-1", 500)
        for piece in ("It ", "closes ", "at "):
            model.current.tell(Transcript("assistant", "item-1", piece, final=False))
        await phone.settle(0.1)
        await lose(phone, model)
        await phone.settle(3)
        assert phone.said[0] == ("bot", "It closes at")


async def test_a_tool_that_was_running_is_asked_for_again(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, fillerAfterMs=0) as phone:
        await on_the_phone(phone)
        phone.agent.then(20.0, "Fine.")
        model.current.speak("Let me see.", 500)
        model.current.tell(CONSULT)
        await phone.settle(12)
        await lose(phone, model)
        assert requests(model) == 1


@pytest.mark.parametrize("says", [True, False])
async def test_a_result_that_the_model_has_yet_to_speak_of(tmp_path: Path, says: bool) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, fillerAfterMs=0) as phone:
        await on_the_phone(phone)
        phone.agent.then(12.0, "Sunny.")
        model.current.hears("What is the weather like?")
        model.current.speak("Let me see.", 500)
        model.current.tell(CONSULT)
        await phone.settle(12.5)
        assert model.current.results == [("t1", {"answer": "Sunny."}, False)]
        if says:
            model.current.speak("It is sunny.", 500)
            await phone.settle(0.1)
        await lose(phone, model)
        assert requests(model) == (0 if says else 1)


async def test_who_has_an_answer_is_told_nothing(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.hears("When do you close?")
        await phone.settle(0.5)
        # It came whole, and is still being played.
        model.current.speak("At six in the evening.", 3000)
        await phone.settle(0.5)
        await lose(phone, model)
        await phone.settle(3)
        assert requests(model) == 0
        assert phone.said[-1] == ("bot", "At six in the evening.")


@pytest.mark.parametrize("played", [True, False])
async def test_words_that_are_known_after_their_answer_began_have_it(
    tmp_path: Path, played: bool
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.tell(SpeechStarted(0), SpeechStopped(900))
        await phone.settle(0.1)
        model.current.speak("At six in the evening.", 2000)
        await phone.settle(0.2)
        model.current.hears("When do you close?")
        await phone.settle(3 if played else 0.5)
        await lose(phone, model)
        await phone.settle(3)
        assert requests(model) == 0


async def test_words_over_an_answer_that_began_in_them_are_answered(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.1)
        model.current.speak("It is sunny.", 500)
        await phone.settle(0.2)
        model.current.tell(SpeechStopped(900))
        model.current.hears("And when do you close?")
        await phone.settle(1)
        await lose(phone, model)
        assert requests(model) == 1


async def test_who_has_long_been_given_no_answer_is_told_nothing(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.hears("Mm-hm.")
        await phone.settle(15)
        await lose(phone, model)
        assert requests(model) == 0


async def test_who_is_speaking_is_let_finish(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.tell(SpeechStarted(0), SpeechStopped(900))
        await phone.settle(0.5)
        model.current.tell(SpeechStarted(1400))
        await phone.settle(0.1)
        await lose(phone, model)
        assert requests(model) == 0


async def test_a_session_that_expires_while_the_caller_waits(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.hears("When do you close?")
        model.current.tell(SessionExpiring(60_000))
        await phone.settle(1)
        assert len(model.sessions) == 2
        assert requests(model) == 1


async def test_a_session_that_expires_while_a_tool_runs_is_left_behind_the_answer(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, fillerAfterMs=0) as phone:
        await on_the_phone(phone)
        phone.agent.then(8.0, "Sunny.")
        model.current.tell(CONSULT, SessionExpiring(60_000))
        await phone.settle(9)
        assert model.current.results == [("t1", {"answer": "Sunny."}, False)]
        model.current.speak("It is sunny.", 3000)
        await phone.settle(2)
        assert len(model.sessions) == 1
        await phone.settle(3)
        assert len(model.sessions) == 2
        assert requests(model) == 0
        assert phone.said == [("bot", "It is sunny.")]
        assert len(phone.agent.turns) == 1


async def test_a_session_that_expires_while_the_model_thinks_is_left_behind_the_answer(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.hears("When do you close?")
        model.current.tell(ResponseStarted("response-1"), SessionExpiring(60_000))
        await phone.settle(5)
        assert len(model.sessions) == 1
        model.current.speak("At six in the evening.", 3000)
        await phone.settle(5)
        assert len(model.sessions) == 2
        assert requests(model) == 0
        assert phone.said[-1] == ("bot", "At six in the evening.")


async def test_a_session_is_left_before_it_ends_whatever_tools_run(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, fillerAfterMs=0) as phone:
        await on_the_phone(phone)
        phone.agent.then(20.0, "Sunny.")
        model.current.tell(CONSULT, SessionExpiring(10_000))
        await phone.settle(7.5)
        assert len(model.sessions) == 1
        await phone.settle(1)
        assert len(model.sessions) == 2
        assert requests(model) == 1


async def test_a_reset_is_made_up_for_once(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await on_the_phone(phone)
        model.current.speak("A long sentence.", 5000)
        await phone.settle(1)
        model.current.tell(SessionReset())
        await phone.settle(5)
        assert requests(model) == 1
        model.current.tell(SessionReset())
        await phone.settle(1)
        assert requests(model) == 1


async def test_a_notification_is_no_conversation(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await phone.dial(mode=CallMode.NOTIFY, message="Your order is ready.")
        await phone.answer()
        await phone.settle(0.5)
        model.current.write("item-9", 500)
        await phone.settle(0.1)
        await lose(phone, model)
        assert requests(model) == 0
