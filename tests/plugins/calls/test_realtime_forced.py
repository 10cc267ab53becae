"""Forced consultation: the host asks the agent if the voice model does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import telephony as tel
from voicecall.agent import EndCall
from voicecall.errors import ProviderUnavailable
from voicecall.model import EndDetail
from voicecall.realtime import (
    Interrupted,
    Interrupter,
    RealtimeCapabilities,
    ResponseDone,
    ResponseStarted,
    SessionReset,
    SpeechStarted,
    ToolCall,
    ToolCancelled,
)
from voicecall_calls.conversation.realtime.words import cut, is_small_talk
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime
from voicecall_testing.harness import Phone

from .asking import asked
from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

QUESTION = "When does the last train to Bern leave?"
CONSULT = "voicecall_agent_consult"
DOWN = ProviderUnavailable("down", provider="agent")


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


@asynccontextmanager
async def on_the_phone(
    directory: Path, model: ScriptedRealtime, policy: str = "always", **config: Any
) -> AsyncIterator[Phone]:
    realtime = {"consultPolicy": policy, **config.pop("realtime", {})}
    async with open_realtime(directory, model, realtime=realtime, **config) as phone:
        await phone.dial()
        await phone.answer()
        await phone.settle(0.1)
        yield phone


def says(model: ScriptedRealtime, text: str = QUESTION) -> None:
    """The caller speaks."""
    model.current.tell(SpeechStarted(0))
    model.current.hears(text)


def consult(call_id: str = "t1") -> ToolCall:
    return ToolCall(call_id, CONSULT, {"question": QUESTION})


def spoken(model: ScriptedRealtime) -> list[str]:
    """What the host had the model say."""
    return [text for kind, text in model.current.asked if kind == "say"]


async def test_the_agents_answer_takes_the_place_of_the_models_own(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then("At half past eleven.")
        says(model)
        await phone.settle(0.1)
        model.current.speak("I think that it leaves at ten, or maybe a bit later.", 3000)
        await phone.settle(0.05)
        assert phone.socket.clears == 0
        await phone.settle(2)
        assert phone.socket.clears == 1
        assert len(model.current.interrupts) == 1
        assert spoken(model) == ["At half past eleven."]
        assert phone.said[-1] == ("bot", "At half past eleven.")
        (turn,) = phone.agent.turns
        assert turn.text.endswith(QUESTION)
        # It was not the caller who interrupted.
        assert [row.barge_in_stop_ms for row in await phone.rows()] == [None, None]


async def test_nobody_is_asked_while_the_call_is_being_ended(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.carrier.fail(tel.Hangup, *[DOWN] * 9)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(phone.operations.end, phone.record.call_id)
            await phone.settle(0.05)
            assert phone.record.ending is not None
            says(model)
            await phone.settle(3)
            tasks.cancel_scope.cancel()
        assert phone.said == [("user", QUESTION)]
        assert phone.agent.turns == []


async def test_a_model_that_has_not_begun_is_stopped_too(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        says(model)
        await phone.settle(2)
        assert model.current.interrupts == [{}]
        assert spoken(model) == ["Yes."]


@pytest.mark.parametrize("sounds", [True, False], ids=["in its words", "before them"])
async def test_a_late_end_of_the_models_own_answer_says_nothing_of_the_agents(
    tmp_path: Path, sounds: bool
) -> None:
    model = ScriptedRealtime()
    model.idle = True
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then("At half past eleven.", EndCall())
        says(model)
        model.current.tell(ResponseStarted("own"))
        await phone.settle(0.1)
        if sounds:
            model.current.write("own item", 3000)
        await phone.settle(0.2)
        assert spoken(model) == ["At half past eleven."]
        items = ("own item",) if sounds else ()
        model.current.tell(ResponseDone("own", "cancelled", items=items))
        await phone.settle(0.2)
        model.current.speak("At half past eleven.", 1000)
        await phone.settle(3)
        assert [text for _, text in model.sessions[0].asked] == ["At half past eleven."]
        assert phone.said[-1] == ("bot", "At half past eleven.")
        assert phone.record.end_detail is EndDetail.AGENT


async def test_nothing_is_heard_of_an_answer_that_was_interrupted_before_it_began(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    model.idle = True
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then(1.0, "At half past eleven.")
        says(model)
        model.current.tell(ResponseStarted("own"))
        await phone.settle(0.3)
        assert model.current.interrupts == [{}]
        # It was on its way.
        model.current.write("own item", 3000)
        model.current.tell(ResponseDone("own", "cancelled", items=("own item",)))
        await phone.settle(1)
        assert phone.socket.audio_sent == b""
        model.current.speak("At half past eleven.", 1000)
        await phone.settle(3)
        assert phone.said == [("user", QUESTION), ("bot", "At half past eleven.")]


@pytest.mark.parametrize("when", ["before the words", "after the words"])
async def test_a_model_that_consults_by_itself_is_left_alone(tmp_path: Path, when: str) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.5)
        if when == "before the words":
            model.current.tell(consult())
            await phone.settle(0.3)
            model.current.hears(QUESTION)
        else:
            model.current.hears(QUESTION)
            await phone.settle(0.1)
            model.current.tell(consult())
        await phone.settle(2)
        assert len(phone.agent.turns) == 1
        assert model.current.results == [("t1", {"answer": "Yes."}, False)]
        assert spoken(model) == []
        assert model.current.interrupts == []


async def test_words_while_the_model_waits_for_the_agent_do_not_stop_it(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, fillerAfterMs=0) as phone:
        phone.agent.then(3.0, "At half past eleven.")
        says(model)
        model.current.tell(consult())
        await phone.settle(1)
        says(model, "The last one of today, I mean.")
        await phone.settle(4)
        assert len(phone.agent.turns) == 1
        assert model.current.results == [("t1", {"answer": "At half past eleven."}, False)]
        assert spoken(model) == []
        assert model.current.interrupts == []


async def test_a_call_of_one_turn_says_nothing_of_the_next(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        says(model)
        model.current.tell(consult())
        await phone.settle(1)
        says(model, "And the first one tomorrow?")
        await phone.settle(1)
        assert len(phone.agent.turns) == 2
        assert spoken(model) == ["Yes."]


@pytest.mark.parametrize("policy", ["auto", "substantive"])
async def test_other_policies_leave_it_to_the_model(tmp_path: Path, policy: str) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, policy) as phone:
        says(model)
        await phone.settle(2)
        assert phone.agent.turns == []


@pytest.mark.parametrize("realtime", [{"toolPolicy": "none"}, {}])
async def test_no_agent_or_no_tools_means_no_consultation(
    tmp_path: Path, realtime: dict[str, Any]
) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(delegation=not realtime))
    async with on_the_phone(tmp_path, model, realtime=realtime) as phone:
        says(model)
        await phone.settle(2)
        assert phone.agent.turns == []
        assert model.current.interrupts == []


async def test_small_talk_is_the_models_own(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        says(model, "Mm-hm.")
        says(model, "Hello there!")
        await phone.settle(2)
        assert phone.agent.turns == []


async def test_a_slow_agent_is_bridged_by_a_filler(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then(4.0, "At half past eleven.")
        says(model)
        await phone.settle(2.5)
        assert spoken(model) == [phone.config.phrases.filler]
        await phone.settle(4)
        assert spoken(model)[1:] == ["At half past eleven."]


async def test_a_filler_without_words_is_not_spoken(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, phrases={"filler": ""}) as phone:
        phone.agent.then(4.0, "At half past eleven.")
        says(model)
        await phone.settle(6)
        assert spoken(model) == ["At half past eleven."]


async def test_a_call_that_comes_meanwhile_brings_the_answer(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, fillerAfterMs=0) as phone:
        phone.agent.then(2.0, "At half past eleven.")
        says(model)
        await phone.settle(1)
        model.current.tell(consult())
        await phone.settle(4)
        assert len(phone.agent.turns) == 1
        assert model.current.results == [("t1", {"answer": "At half past eleven."}, False)]
        assert spoken(model) == []


async def test_a_call_that_is_taken_back_leaves_the_answer_to_the_host(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, fillerAfterMs=0) as phone:
        phone.agent.then(2.0, "At half past eleven.")
        says(model)
        await phone.settle(1)
        model.current.tell(consult())
        await phone.settle(0.5)
        model.current.tell(ToolCancelled("t1"))
        await phone.settle(4)
        assert model.current.results == []
        assert spoken(model) == ["At half past eleven."]


async def test_a_late_call_is_told_that_the_answer_was_delivered(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        says(model)
        await phone.settle(0.5)
        assert spoken(model) == ["Yes."]
        for number, wait in enumerate((0.0, 2.0, 2.0)):
            await phone.settle(wait)
            model.current.tell(consult(f"t{number}"))
        await phone.settle(0.5)
        first, second, third = (result for _, result, _ in model.current.results)
        assert first["status"] == second["status"] == "already_delivered"
        assert third == {"answer": "Yes."}
        assert len(phone.agent.turns) == 2


@pytest.mark.parametrize("stops_in_s", [0.0, 1.0])
async def test_later_words_take_the_place_of_earlier_ones(
    tmp_path: Path, stops_in_s: float
) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, fillerAfterMs=0) as phone:
        phone.agent.settle_takes_s = stops_in_s
        phone.agent.then(5.0, "Never heard.")
        phone.agent.then("Tomorrow at five.")
        says(model)
        await phone.settle(1)
        says(model, "No, I mean the first one tomorrow.")
        await phone.settle(8)
        assert spoken(model) == ["Tomorrow at five."]
        assert [heard for _, heard in phone.agent.settled] == [""]
        assert QUESTION in phone.agent.turns[1].text


async def test_a_call_for_later_words_is_not_late_for_the_answer_to_earlier_ones(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    model.answer_ms = 5000
    async with on_the_phone(tmp_path, model, bargeIn={"enabled": False}) as phone:
        says(model)
        await phone.settle(1)
        assert spoken(model) == ["Yes."]
        # The answer is still being spoken.
        phone.agent.then("Tomorrow at five.")
        says(model, "And the first one tomorrow?")
        await phone.settle(0.05)
        model.current.tell(consult())
        await phone.settle(3)
        assert model.current.results == [("t1", {"answer": "Tomorrow at five."}, False)]


async def test_a_call_for_words_over_the_answer_may_come_before_they_are_known(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    model.answer_ms = 3000
    async with on_the_phone(tmp_path, model) as phone:
        says(model)
        await phone.settle(1)
        phone.agent.then("Tomorrow at five.")
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.7)
        model.current.tell(consult())
        await phone.settle(0.1)
        model.current.hears("And the first one tomorrow?")
        await phone.settle(2)
        assert model.current.results == [("t1", {"answer": "Tomorrow at five."}, False)]
        assert spoken(model) == ["Yes."]


async def test_a_call_that_comes_late_is_no_answer_to_later_words(tmp_path: Path) -> None:
    # It does not tell that the caller begins to speak.
    model = ScriptedRealtime(RealtimeCapabilities(interrupts=Interrupter.MODEL))
    model.answer_ms = 3000
    async with on_the_phone(tmp_path, model) as phone:
        model.current.hears(QUESTION)
        await phone.settle(1)
        phone.agent.then("Tomorrow at five.")
        model.current.tell(Interrupted(), consult())
        await phone.settle(0.5)
        model.current.hears("And the first one tomorrow?")
        await phone.settle(2)
        ((_, result, _),) = model.current.results
        assert result["status"] == "already_delivered"
        assert spoken(model) == ["Yes.", "Tomorrow at five."]


async def test_words_without_a_begin_are_a_turn_of_their_own(tmp_path: Path) -> None:
    # It does not tell that the caller begins to speak.
    model = ScriptedRealtime(RealtimeCapabilities(interrupts=Interrupter.MODEL))
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then("At half past eleven.")
        model.current.tell(consult())
        model.current.hears(QUESTION)
        await phone.settle(1)
        phone.agent.then("Tomorrow at five.")
        # This time it does not consult.
        model.current.hears("And the first one tomorrow?")
        await phone.settle(3)
        assert len(phone.agent.turns) == 2
        assert spoken(model) == ["Tomorrow at five."]
        phone.agent.then("At six.")
        # And this time it does, while that answer is fresh.
        model.current.hears("And the one behind it?")
        model.current.tell(consult("t2"))
        await phone.settle(2)
        assert model.current.results[1:] == [("t2", {"answer": "At six."}, False)]


async def test_the_agent_is_not_asked_about_the_answer_to_somebody_elses_question(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        async with asked(phone, "Which day?") as answers:
            await phone.settle(2)
            says(model, "On Monday.")
        assert answers == ["On Monday."]
        await phone.settle(2)
        assert phone.agent.turns == []
        says(model)
        await phone.settle(2)
        assert len(phone.agent.turns) == 1


async def test_a_reset_drops_the_consultation(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, fillerAfterMs=0) as phone:
        phone.agent.then(2.0, "Never heard.")
        says(model)
        await phone.settle(1)
        model.current.tell(SessionReset())
        await phone.settle(3)
        assert spoken(model) == [phone.config.phrases.not_understood]


async def test_an_agent_that_ends_the_call_does_so_behind_its_words(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then("Goodbye then.", EndCall())
        says(model)
        await phone.settle(0.8)
        assert phone.engine.lanes
        await phone.settle(2)
        assert phone.said[-1] == ("bot", "Goodbye then.")
        assert phone.record.end_detail is EndDetail.AGENT


async def test_an_agent_may_end_the_call_without_a_word(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then(EndCall())
        says(model, "That was all.")
        await phone.settle(2)
        assert spoken(model) == []
        assert phone.record.end_detail is EndDetail.AGENT


async def test_words_of_the_caller_over_the_farewell_keep_the_call(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.answer_ms = 3000
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then("Goodbye then.", EndCall())
        says(model)
        await phone.settle(1.5)
        model.current.tell(SpeechStarted(0))
        await phone.settle(5)
        assert phone.engine.lanes


async def test_an_agent_that_fails_is_apologised_for_then_the_call_ends(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phrases = phone.config.phrases
        phone.agent.then(DOWN)
        says(model)
        await phone.settle(3)
        assert spoken(model) == [phrases.not_understood]
        phone.agent.then(DOWN)
        says(model, "I said: when is the last train?")
        await phone.settle(0.5)
        # Nothing takes the floor from the last words.
        says(model, "Hello? Are you still there?")
        await phone.settle(5)
        assert len(phone.agent.turns) == 2
        assert phone.socket.clears == 0
        assert spoken(model) == [phrases.not_understood, phrases.failed]
        assert phone.said[-1] == ("bot", phrases.failed)
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_an_answer_that_the_model_refuses_to_speak_is_a_failure(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        model.refusals.append(DOWN)
        says(model)
        await phone.settle(3)
        assert spoken(model) == ["Yes.", phone.config.phrases.not_understood]


async def test_answers_that_the_model_does_not_speak_end_the_call(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.idle = True
    async with on_the_phone(tmp_path, model, realtime={"inactivityMs": 0}) as phone:
        for _ in range(2):
            says(model)
            await phone.settle(2.5 * phone.config.tts.timeout_ms / 1000)
        phrases = phone.config.phrases
        assert spoken(model) == ["Yes.", phrases.not_understood, "Yes.", phrases.failed]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_an_answer_that_comes_behind_the_last_words_is_not_spoken(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model, fillerAfterMs=0) as phone:
        phone.agent.then(2.0, "At half past eleven.")
        says(model)
        await phone.settle(1)
        for number in range(2):
            model.current.tell(ResponseDone(f"r{number}", "failed", "overloaded"))
            await phone.settle(0.8)
        await phone.settle(5)
        phrases = phone.config.phrases
        assert spoken(model) == [phrases.not_understood, phrases.failed]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_answers_that_the_caller_interrupts_before_they_begin_are_no_failures(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    model.idle = True
    async with on_the_phone(tmp_path, model) as phone:
        for number in range(3):
            phone.agent.then("Goodbye then.", EndCall())
            says(model)
            await phone.settle(0.5)
            model.current.tell(
                ResponseStarted(f"r{number}"),
                SpeechStarted(0),
                ResponseDone(f"r{number}", "cancelled"),
            )
            await phone.settle(0.5)
        assert spoken(model) == ["Goodbye then."] * 3
        assert phone.record.ending is None


async def test_a_filler_that_fails_costs_no_answer(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then(3.0, "At half past eleven.")
        model.refusals.append(DOWN)
        says(model)
        await phone.settle(6)
        assert spoken(model) == [phone.config.phrases.filler, "At half past eleven."]


async def test_an_answer_in_between_is_forgiven(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        for script in (DOWN, "Yes.", DOWN):
            phone.agent.then(script)
            says(model)
            await phone.settle(4)
        assert phone.engine.lanes
        assert len(phone.agent.turns) == 3


async def test_a_long_answer_is_cut_at_a_sentence(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with on_the_phone(tmp_path, model) as phone:
        phone.agent.then("This is one of many sentences. " * 100)
        says(model)
        await phone.settle(1)
        (text,) = spoken(model)
        assert len(text) <= 1800
        assert text.endswith("sentences.")


def test_cutting() -> None:
    assert cut("Short.", 10) == "Short."
    assert cut("One. Two. Three.", 10) == "One. Two."
    assert cut("one two three", 9) == "one two"
    assert cut("abcdefghij", 4) == "abcd"


@pytest.mark.parametrize("text", ["", "...", "Hello!", "Uh-huh.", "Thank you very much."])
def test_small_talk(text: str) -> None:
    assert is_small_talk(text)


@pytest.mark.parametrize("text", ["Yes.", "No", "Hello, is that the bakery?", "Danke, und morgen?"])
def test_everything_else_is_of_substance(text: str) -> None:
    assert not is_small_talk(text)
