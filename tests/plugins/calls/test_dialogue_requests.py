"""Requests from outside (speak, continue, keys) and silence, streamed and carrier-native."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.agent import EndCall
from voicecall.errors import CallNotActive, CallNotReady, ProviderUnavailable
from voicecall.model import CallState, EndDetail, EndReason, MediaPath
from voicecall_calls.config import PhrasesConfig
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import NATIVE, ScriptedCarrier
from voicecall_testing.harness import Phone, open_phone

from .asking import QUESTION, asked

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SAY = PhrasesConfig()
both_paths = pytest.mark.parametrize("media", [MediaPath.NATIVE, MediaPath.STREAM])


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def greeted(phone: Phone) -> None:
    await phone.call_in()
    await phone.settle(3)
    assert phone.said == [("bot", SAY.greeting)]


async def words(phone: Phone, text: str) -> None:
    """The caller says something, on either path."""
    if phone.media is MediaPath.NATIVE:
        await phone.event(ev.SpeechHeard, text=text, turn_token=phone.record.listen_token)
    else:
        phone.hears(text)
        await phone.settle()


# --- continue --------------------------------------------------------------------------------


@both_paths
async def test_continue_owns_the_next_turn(tmp_path: Path, media: MediaPath) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        async with asked(phone) as answers:
            await phone.settle(2)
            await words(phone, "Anna.")
        assert answers == ["Anna."]
        await phone.settle(2)
        assert phone.agent.turns == []
        assert phone.said[1:] == [("bot", QUESTION), ("user", "Anna.")]
        row = (await phone.rows())[-1]
        assert row.kind == "continue"
        assert row.stt_final is not None
        assert row.stt_final - row.at == pytest.approx(2000, abs=20)
        assert row.playback_done is not None
        assert row.playback_done - row.at == pytest.approx(900, abs=60)
        # Afterwards the agent answers again, and knows what was asked.
        await words(phone, "And yours?")
        await phone.settle(2)
        assert phone.agent.asked == ["And yours?"]
        opening = (SAY.greeting, QUESTION, "(The other party: Anna.)")
        assert phone.agent.turns[-1].opening == opening


async def test_a_sound_that_is_not_understood_is_no_answer(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        async with asked(phone) as answers:
            for _ in range(4):
                await phone.settle(2)
                phone.hears("")
            await phone.settle(2)
            # The rest may be nobody's.
            assert phone.said[1:] == [("bot", QUESTION)] * 3
            phone.hears("Anna.")
        assert answers == ["Anna."]
        assert phone.agent.turns == []


async def test_a_question_is_not_asked_again_behind_its_answer(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        async with asked(phone) as answers:
            await phone.settle(0.2)
            phone.store.delay_s = 0.5
            phone.stt.started()
            await phone.settle(0.3)
            assert phone.socket.clears == 1
            phone.stt.ended()
            # It is not stored yet that a noise has broken the question off.
            await phone.settle(0.1)
            phone.stt.started()
            await phone.settle(1)
            phone.stt.final("Anna.")
            phone.stt.ended()
        phone.store.delay_s = 0.0
        await phone.settle(3)
        assert answers == ["Anna."]
        assert phone.said[1:] == [("bot", "What is"), ("user", "Anna.")]


@pytest.mark.parametrize("blank_final", [True, False])
async def test_a_question_that_a_noise_breaks_off_is_asked_again(
    tmp_path: Path, blank_final: bool
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        async with asked(phone) as answers:
            await phone.settle(0.2)
            phone.stt.started()
            await phone.settle(0.6)
            assert phone.socket.clears == 1
            if blank_final:
                phone.stt.final("")
            phone.stt.ended()
            await phone.settle(2)
            assert phone.said[1:] == [("bot", "What is"), ("bot", QUESTION)]
            await words(phone, "Anna.")
        await phone.settle(3)
        assert answers == ["Anna."]
        assert phone.said[3:] == [("user", "Anna.")]
        assert phone.agent.turns == []


@both_paths
@pytest.mark.parametrize("how", ["words", "keys"])
async def test_an_answer_into_the_prompt_counts(tmp_path: Path, media: MediaPath, how: str) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        async with asked(phone) as answers:
            await phone.settle(0.4)
            assert phone.record.state is CallState.SPEAKING
            if how == "keys":
                await phone.event(ev.DigitsPressed, digits="1#")
            else:
                await words(phone, "Anna, as always.")
        assert answers == ["1#" if how == "keys" else "Anna, as always."]
        assert phone.agent.turns == []


@both_paths
@pytest.mark.parametrize("how", ["words", "keys"])
async def test_an_answer_into_what_stands_before_the_prompt_does_not_count(
    tmp_path: Path, media: MediaPath, how: str
) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await phone.call_in()
        await phone.settle(1)
        async with asked(phone) as answers:
            await phone.settle(0.2)
            assert len(phone.said) == 0
            if how == "keys":
                await phone.event(ev.DigitsPressed, digits="1#")
            else:
                await words(phone, "Hello?")
            await phone.settle(3)
            assert phone.said[-1] == ("bot", QUESTION)
            await words(phone, "Anna.")
        await phone.settle(3)
        assert answers == ["Anna."]
        assert phone.agent.turns == []


async def test_a_noise_into_what_stands_before_the_prompt_does_not_repeat_it(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.7)
        async with asked(phone) as answers:
            await phone.settle(0.1)
            phone.stt.started()
            await phone.settle(0.5)
            phone.stt.ended()
            await phone.settle(3)
            assert phone.said[1:] == [("bot", QUESTION)]
            await words(phone, "Anna.")
        assert answers == ["Anna."]


async def test_a_question_takes_the_place_of_an_answer(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then("It was a dark and stormy night, and nobody was about in the old town.")
        phone.hears("Tell me a story.")
        await phone.settle(1)
        async with asked(phone) as answers:
            await phone.settle(0.2)
            assert phone.heard[-1] == QUESTION
            await phone.settle(1)
            await words(phone, "Anna.")
        assert answers == ["Anna."]
        assert len(phone.agent.settled) == 1


@both_paths
async def test_words_that_wait_for_the_last_answer_to_stop_do_not_answer_a_question(
    tmp_path: Path, media: MediaPath
) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        phone.agent.settle_takes_s = 1.0
        phone.agent.then("It was a dark and stormy night, and nobody was about in the old town.")
        await words(phone, "Tell me a story.")
        await phone.settle(1)
        await words(phone, "Stop, please.")
        await phone.settle(0.5)
        async with asked(phone) as answers:
            await phone.settle(3)
            await words(phone, "Anna.")
        await phone.settle(3)
        assert answers == ["Anna."]
        # Nor are they answered besides the question.
        assert ("bot", "Yes.") not in phone.said


async def test_words_that_could_not_be_stored_hold_up_no_question(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.STREAM) as phone:
        await greeted(phone)
        phone.store.failures = 1_000_000
        await words(phone, "What are your opening hours?")
        # Nor could it be stored that the call is to end for that.
        await phone.settle(60)
        phone.store.failures = 0
        async with asked(phone) as answers:
            await phone.settle(3)
            await words(phone, "Anna.")
        assert answers == ["Anna."]


@both_paths
async def test_a_second_continue_is_refused_and_the_first_completes(
    tmp_path: Path, media: MediaPath
) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        async with asked(phone) as answers:
            await phone.settle(2)
            with pytest.raises(CallNotReady, match="Already waiting for transcript"):
                await phone.operations.ask(phone.record.call_id, "And where?")
            await words(phone, "Anna.")
        assert answers == ["Anna."]
        assert ("bot", "And where?") not in phone.said


@both_paths
async def test_continue_gives_up_and_the_call_goes_on(tmp_path: Path, media: MediaPath) -> None:
    config = {"transcriptTimeoutMs": 7000}
    async with open_phone(tmp_path, media=media, config=config) as phone:
        await greeted(phone)
        begun = phone.now()
        with pytest.raises(CallNotReady, match="Timed out waiting for transcript after 7000ms"):
            await phone.operations.ask(phone.record.call_id, QUESTION)
        # The prompt takes 0.9 s.
        assert phone.now() - begun == pytest.approx(7900, abs=100)
        await words(phone, "Hello?")
        await phone.settle(2)
        assert phone.agent.asked == ["Hello?"]


@both_paths
async def test_the_end_of_the_call_rejects_a_waiting_continue(
    tmp_path: Path, media: MediaPath
) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        call_id = phone.record.call_id
        problems: list[str] = []

        async def ask() -> None:
            try:
                await phone.operations.ask(call_id, QUESTION)
            except CallNotReady as error:
                problems.append(str(error))

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask)
            await phone.settle(2)
            await phone.hang_up()
        assert problems == ["Call ended: hangup-user"]
        with pytest.raises(CallNotActive):
            await phone.operations.ask(call_id, QUESTION)


async def test_what_was_being_said_before_a_question_does_not_answer_it(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        token = phone.record.listen_token
        async with asked(phone) as answers:
            await phone.settle(2)
            await phone.event(ev.SpeechHeard, text="I mean that", turn_token=token)
            await words(phone, "Anna.")
        assert answers == ["Anna."]


async def test_what_a_streamed_caller_is_saying_is_let_finish_and_does_not_answer(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.stt.started()
        phone.stt.partial("I mean")
        await phone.settle(0.1)
        async with asked(phone) as answers:
            await phone.settle(2)
            assert len(phone.said) == 1
            phone.stt.final("I mean that.")
            phone.stt.ended()
            await phone.settle(3)
            assert answers == []
            phone.hears("Anna.")
        assert answers == ["Anna."]
        said = [("user", "I mean that."), ("bot", QUESTION), ("user", "Anna.")]
        assert phone.said[1:] == said


@both_paths
async def test_what_is_said_before_a_question_is_asked_does_not_answer_it(
    tmp_path: Path, media: MediaPath
) -> None:
    config = {"bargeIn": {"greetingProtectionMs": 0}}
    async with open_phone(tmp_path, media=media, config=config) as phone:
        phone.plays = False
        await phone.call_in()
        phone.plays = True
        await phone.settle(0.5)
        async with asked(phone) as answers:
            # It waits for the greeting.
            await phone.settle(0.2)
            greeting, token = phone.record.utterance, phone.record.listen_token
            assert greeting is not None
            if media is MediaPath.NATIVE:
                await phone.tell(
                    phone.make(ev.PlaybackEnded, utterance_id=greeting.id),
                    phone.make(ev.SpeechHeard, text="Who is there?", turn_token=token),
                )
            else:
                phone.stt.started()
                phone.stt.partial("Who is")
                await phone.settle(1)
                phone.stt.final("Who is there?")
                phone.stt.ended()
            await phone.settle(3)
            assert answers == []
            await words(phone, "Anna.")
        assert answers == ["Anna."]
        assert phone.agent.turns == []
        said = [("user", "Who is there?"), ("bot", QUESTION), ("user", "Anna.")]
        assert phone.said[1:] == said


@both_paths
async def test_keys_answer_a_question_too(tmp_path: Path, media: MediaPath) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        async with asked(phone) as answers:
            await phone.settle(2)
            for key in "4711#":
                await phone.event(ev.DigitsPressed, digits=key)
        assert answers == ["4711#"]
        await phone.settle(3)
        assert phone.agent.turns == []


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        (ev.SpeechHeard, {"text": "   "}),
        (ev.SpeechHeard, {"text": "Of another turn.", "turn_token": "stale"}),
        (ev.DigitsPressed, {"digits": "4#", "turn_token": "stale"}),
    ],
)
async def test_blank_speech_and_inputs_of_another_turn_leave_the_question_open(
    tmp_path: Path, kind: type[ev.CarrierEvent], other: dict[str, Any]
) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        async with asked(phone) as answers:
            await phone.settle(2)
            await phone.event(kind, **other)
            await phone.settle(2)
            assert answers == []
            await words(phone, "Anna.")
        assert answers == ["Anna."]
        assert [entry for entry in phone.said if entry[0] == "user"] == [("user", "Anna.")]


async def test_a_question_that_cannot_be_spoken_fails_at_once(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.tts.errors.append(ProviderUnavailable("no voice", provider="scripted"))
        with pytest.raises(ProviderUnavailable, match="no voice"):
            await phone.operations.ask(phone.record.call_id, QUESTION)
        assert phone.record.live


# --- speak -----------------------------------------------------------------------------------


@both_paths
async def test_words_behind_a_question_that_cannot_be_spoken_are_the_agents(
    tmp_path: Path, media: MediaPath
) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        error = ProviderUnavailable("no voice", provider="scripted")
        phone.tts.errors.append(error)
        phone.carrier.fail(tel.Speak, error)

        async def ask() -> None:
            with pytest.raises(ProviderUnavailable):
                await phone.operations.ask(phone.record.call_id, QUESTION)

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask)
            await phone.settle(0.5)
            assert phone.record.utterance is not None
            assert phone.record.utterance.text == SAY.not_understood
            await words(phone, "Hello?")
            await phone.settle(3)
        assert phone.agent.asked == ["Hello?"]
        assert phone.said[-1] == ("bot", "Yes.")


@both_paths
async def test_speak_returns_when_it_was_played(tmp_path: Path, media: MediaPath) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        begun = phone.now()
        await phone.operations.speak(phone.record.call_id, "A word in between.")
        assert phone.now() - begun == pytest.approx(900, abs=60)
        assert phone.said[-1] == ("bot", "A word in between.")
        assert phone.record.state is CallState.LISTENING


@both_paths
async def test_the_agent_is_told_what_was_said_without_it(tmp_path: Path, media: MediaPath) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        phone.agent.then("Once upon a time there was a king who had a very old castle.")
        await words(phone, "Tell me a story.")
        await phone.settle(1)
        # Its own answers, whole or not, are not included.
        await words(phone, "Another one.")
        await phone.settle(4)
        await phone.operations.speak(phone.record.call_id, "Your table is free.")
        async with asked(phone) as answers:
            await phone.settle(2)
            await words(phone, "Anna.")
        await phone.settle(2)
        await words(phone, "Thanks.")
        await phone.settle(4)
        await words(phone, "Bye.")
        await phone.settle(4)
        assert answers == ["Anna."]
        without = ("Your table is free.", QUESTION, "(The other party: Anna.)")
        told = [turn.opening for turn in phone.agent.turns]
        assert told == [(SAY.greeting,), (), without, ()]


async def test_words_from_outside_wait_for_what_the_caller_is_saying(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.stt.started()
        await phone.settle(0.1)
        async with anyio.create_task_group() as speaking:
            speaking.start_soon(phone.operations.speak, phone.record.call_id, "A word in between.")
            await phone.settle(1)
            phone.stt.partial("As I said")
            await phone.settle(1)
            phone.stt.final("As I said.")
            phone.stt.ended()
        assert ("bot", "A word in between.") in phone.said
        assert phone.socket.clears == 0


async def test_words_from_outside_are_interrupted_like_any_other(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        async with anyio.create_task_group() as speaking:
            speaking.start_soon(phone.operations.speak, phone.record.call_id, "A word in between.")
            await phone.settle(0.3)
            phone.stt.started()
            phone.stt.partial("Wait")
            await phone.settle(0.05)
            assert phone.socket.clears == 1


async def test_words_from_outside_leave_what_the_caller_is_saying_its_turn(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        token = phone.record.listen_token
        await phone.operations.speak(phone.record.call_id, "A word in between.")
        await phone.event(ev.SpeechHeard, text="As I said.", turn_token=token)
        await phone.settle(2)
        assert phone.agent.asked == ["As I said."]


async def test_what_is_said_into_words_from_outside_is_answered_as_one(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        async with anyio.create_task_group() as speaking:
            speaking.start_soon(phone.operations.speak, phone.record.call_id, "A word in between.")
            for text in ("First.", "Second.", "Third."):
                await phone.settle(0.2)
                await phone.event(ev.SpeechHeard, text=text)
        await phone.settle(2)
        assert phone.agent.asked == ["First. Second. Third."]
        assert phone.said[-1] == ("bot", "Yes.")
        # That is over then.
        await words(phone, "Fourth.")
        await phone.settle(2)
        assert phone.agent.asked[1:] == ["Fourth."]


@both_paths
async def test_nothing_is_said_while_the_call_is_being_ended(
    tmp_path: Path, media: MediaPath
) -> None:
    async with open_phone(tmp_path, media=media, config=SILENCE) as phone:
        await greeted(phone)
        busy = ProviderUnavailable("busy", provider="scripted")
        phone.carrier.fail(tel.Hangup, *[busy] * 9)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(phone.operations.end, phone.record.call_id)
            await phone.settle(0.05)
            assert phone.record.ending is not None
            await words(phone, "Goodbye!")
            # Nor is the caller asked whether they are still there.
            await phone.settle(8)
            assert phone.record.live
            tasks.cancel_scope.cancel()
        assert phone.agent.turns == []
        assert phone.said == [("bot", SAY.greeting), ("user", "Goodbye!")]
        assert len(phone.carrier.performed_of(tel.Speak)) == (media is MediaPath.NATIVE)


@pytest.mark.parametrize("keeps", [True, False])
async def test_tones_wait_for_words_that_they_would_cut_short(tmp_path: Path, keeps: bool) -> None:
    carrier = ScriptedCarrier(replace(NATIVE, dtmf_keeps_stream=keeps))
    async with open_phone(tmp_path, media=MediaPath.NATIVE, carrier=carrier) as phone:
        await greeted(phone)
        call_id = phone.record.call_id
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(phone.operations.speak, call_id, "A word in between.")
            await phone.settle(0.3)
            tasks.start_soon(phone.operations.dtmf, call_id, "12")
            await phone.settle(0.3)
            assert len(carrier.performed_of(tel.PlayDigits)) == keeps
        assert len(carrier.performed_of(tel.PlayDigits)) == 1


@both_paths
async def test_two_speakers_take_their_turns(tmp_path: Path, media: MediaPath) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        call_id = phone.record.call_id
        async with anyio.create_task_group() as speaking:
            for text in ("First of all.", "After that."):
                speaking.start_soon(phone.operations.speak, call_id, text)
        assert phone.said[1:] == [("bot", "First of all."), ("bot", "After that.")]


async def test_words_that_wait_are_not_said_into_an_interruption(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        call_id = phone.record.call_id
        async with anyio.create_task_group() as speaking:
            for text in ("First of all, hello.", "After that.", "And at last."):
                speaking.start_soon(phone.operations.speak, call_id, text)
            await phone.settle(0.4)
            phone.stt.started()
            phone.stt.partial("Wait")
            await phone.settle(1)
            phone.stt.final("Wait a moment.")
            phone.stt.ended()
        await phone.settle(2)
        assert phone.socket.clears == 1
        (_, first), *rest = phone.said[1:]
        assert "First of all, hello.".startswith(first)
        assert rest == [("user", "Wait a moment."), ("bot", "Yes.")]


@both_paths
async def test_the_end_of_the_call_rejects_words_that_wait(
    tmp_path: Path, media: MediaPath
) -> None:
    async with open_phone(tmp_path, media=media) as phone:
        await greeted(phone)
        call_id = phone.record.call_id
        problems: list[str] = []

        async def speak(text: str) -> None:
            try:
                await phone.operations.speak(call_id, text)
            except CallNotReady as error:
                problems.append(str(error))

        async with anyio.create_task_group() as speaking:
            for text in ("First of all.", "After that."):
                speaking.start_soon(speak, text)
            await phone.settle(0.3)
            await phone.hang_up()
        assert problems == ["Call ended: hangup-user"] * 2
        assert ("bot", "After that.") not in phone.said


@pytest.mark.parametrize("asks", [True, False])
async def test_nobody_waits_for_a_caller_to_finish_whose_call_is_over(
    tmp_path: Path, asks: bool
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        call_id, operations = phone.record.call_id, phone.operations
        phone.stt.started()
        over: list[int] = []

        async def request() -> None:
            with pytest.raises(CallNotReady, match="hangup-user"):
                await (operations.ask if asks else operations.speak)(call_id, QUESTION)
            over.append(phone.now())

        async with anyio.create_task_group() as speaking:
            speaking.start_soon(request)
            await phone.settle(0.3)
            ended = phone.now()
            await phone.hang_up()
        assert over[0] - ended < 200


async def test_words_that_the_end_of_the_call_cuts_off_are_not_reported_as_spoken(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then("Goodbye, and thank you for calling.", EndCall())
        phone.hears("That is all.")
        await phone.settle(0.5)
        # They wait for the goodbye, and the call ends after it.
        with pytest.raises(CallNotReady, match="the call is being ended"):
            await phone.operations.speak(phone.record.call_id, "One more thing.")
        await phone.settle(1)
        assert phone.heard == [SAY.greeting, "Goodbye, and thank you for calling."]


async def test_words_that_were_not_played_are_not_in_the_transcript(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        phone.carrier.fail(tel.Speak, ProviderUnavailable("busy", provider="scripted"))
        with pytest.raises(ProviderUnavailable, match="busy"):
            await phone.operations.speak(phone.record.call_id, "Never heard.")
        assert ("bot", "Never heard.") not in phone.said
        assert phone.record.state is CallState.LISTENING


STORY = "It was a dark and stormy night, and nobody was about."


@pytest.mark.parametrize(
    ("lasted_s", "heard"),
    [(0.1, ""), (1.0, "It was a"), (5.0, STORY)],
)
@pytest.mark.parametrize("over", ["a question", "the caller hangs up", "we hang up"])
async def test_words_that_a_carrier_tells_no_end_of_are_in_the_transcript(
    tmp_path: Path, lasted_s: float, heard: str, over: str
) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        # As with a carrier that listens after speaking, and reports both at once.
        phone.plays = False
        phone.agent.then(STORY)
        await words(phone, "Tell me a story.")
        await phone.settle(lasted_s)
        match over:
            case "a question":
                phone.tasks.start_soon(ask_in_vain, phone)
            case "the caller hangs up":
                await phone.hang_up()
            case _:
                await phone.operations.end(phone.record.call_id)
        await phone.settle(1)
        stored = await phone.store.load(phone.record.call_id)
        assert stored is not None
        lines = [(e.speaker.value, e.text, e.complete) for e in stored.transcript[2:]]
        assert lines == ([("bot", heard, heard == STORY)] if heard else [])


async def ask_in_vain(phone: Phone) -> None:
    with pytest.raises(CallNotReady):
        await phone.operations.ask(phone.record.call_id, QUESTION)


async def test_a_speak_action_brings_the_listening_with_it(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        await words(phone, "Hello?")
        await phone.settle(2)
        speaks = phone.carrier.performed_of(tel.Speak)
        assert [s.text for s in speaks if isinstance(s, tel.Speak)] == [SAY.greeting, "Yes."]
        tokens = [s.listen.token for s in speaks if isinstance(s, tel.Speak) and s.listen]
        assert len(set(tokens)) == 2
        assert phone.record.listen_token == tokens[-1]


# --- keys ------------------------------------------------------------------------------------


async def test_keys_in_quick_succession_are_one_turn(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        for key in "407":
            phone.socket.press(key)
            await phone.settle(0.9)
        assert phone.agent.turns == []
        await phone.settle(2)
        assert [turn.digits for turn in phone.agent.turns] == ["407"]
        assert [turn.text for turn in phone.agent.turns] == [""]
        phone.socket.press("1")
        await phone.settle(2)
        assert [turn.digits for turn in phone.agent.turns] == ["407", "1"]


async def test_a_hash_ends_the_keys_at_once(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        for key in "42#":
            phone.socket.press(key)
        await phone.settle(0.1)
        assert [turn.digits for turn in phone.agent.turns] == ["42#"]


async def test_keys_interrupt_the_bot(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then("For sales, press one. For everything else, please wait.")
        phone.hears("Hello?")
        await phone.settle(1)
        phone.socket.press("1")
        await phone.settle(0.05)
        assert phone.socket.clears == 1
        await phone.settle(3)
        assert [turn.digits for turn in phone.agent.turns] == ["", "1"]


async def test_keys_that_stop_the_agent_are_no_failure_of_it(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(3.0, "Too late.")
        phone.hears("Hello?")
        await phone.settle(0.5)
        phone.socket.press("1")
        await phone.settle(5)
        assert [turn.digits for turn in phone.agent.turns] == ["", "1"]
        assert phone.heard == [SAY.greeting, "Yes."]


async def test_keys_and_words_that_come_together_are_both_answered(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(3.0, "Too late.")
        phone.hears("Hello?")
        await phone.settle(0.5)
        phone.socket.press("4#")
        phone.hears("That is all.")
        await phone.settle(5)
        asked = [(turn.digits, turn.text) for turn in phone.agent.turns]
        assert asked[0] == ("", "Hello?")
        # Which come first, or together, is the store's matter.
        assert "".join(digits for digits, _ in asked[1:]) == "4#"
        assert "".join(text for _, text in asked[1:]) == "That is all."


@pytest.mark.parametrize("keys_first", [True, False])
async def test_keys_and_words_that_wait_for_the_last_answer_to_stop_are_both_answered(
    tmp_path: Path, keys_first: bool
) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        phone.agent.settle_takes_s = 1.0
        phone.agent.then("It was a dark and stormy night, and nobody was about in the old town.")
        await words(phone, "Tell me a story.")
        await phone.settle(1)
        if keys_first:
            await phone.event(ev.DigitsPressed, digits="4#")
        await words(phone, "That is all.")
        if not keys_first:
            await phone.event(ev.DigitsPressed, digits="4#")
        await phone.event(ev.DigitsPressed, digits="5#")
        await phone.settle(5)
        asked = [(turn.digits, turn.text) for turn in phone.agent.turns]
        assert asked == [("", "Tell me a story."), ("4#5#", "That is all.")]


async def test_keys_of_a_webhook_count_once(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        pressed = phone.make(ev.DigitsPressed, digits="5", key="digits-1")
        await phone.tell(pressed)
        await phone.tell(pressed)
        await phone.settle(3)
        assert [turn.digits for turn in phone.agent.turns] == ["5"]


# --- silence ---------------------------------------------------------------------------------

SILENCE = {"silence": {"promptAfterMs": 5000, "prompts": 2}}


@both_paths
async def test_a_silent_caller_is_asked_twice_and_then_left(
    tmp_path: Path, media: MediaPath
) -> None:
    async with open_phone(tmp_path, media=media, config=SILENCE) as phone:
        await greeted(phone)
        await phone.settle(25)
        assert phone.said[1:] == [
            ("bot", SAY.still_there),
            ("bot", SAY.still_there),
            ("bot", SAY.goodbye),
        ]
        if media is MediaPath.NATIVE:
            # A carrier that listens would report only after its pause that the caller is silent.
            goodbye = phone.carrier.performed_of(tel.Speak)[-1]
            assert isinstance(goodbye, tel.Speak)
            assert goodbye.listen is None
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.SILENCE


@both_paths
@pytest.mark.parametrize("how", ["words", "keys"])
async def test_an_answer_begins_the_patience_anew(
    tmp_path: Path, media: MediaPath, how: str
) -> None:
    async with open_phone(tmp_path, media=media, config=SILENCE) as phone:
        await greeted(phone)
        for _ in range(3):
            await phone.settle(7)
            if how == "keys":
                # They are answered a second later.
                await phone.settle(2)
                await phone.event(ev.DigitsPressed, digits="1")
            else:
                await words(phone, "Yes, wait.")
        await phone.settle(3)
        assert phone.record.live
        assert phone.said.count(("bot", SAY.still_there)) >= 2
        assert ("bot", SAY.goodbye) not in phone.said


async def test_a_caller_who_speaks_for_long_is_not_asked_whether_anybody_is_there(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path, config=SILENCE) as phone:
        await greeted(phone)
        # The recogniser reports no text before the end.
        phone.stt.started()
        await phone.settle(20)
        phone.stt.final("That was a long story.")
        phone.stt.ended()
        await phone.settle(3)
        assert phone.said[1:] == [("user", "That was a long story."), ("bot", "Yes.")]
        # A sound without an end is no caller.
        phone.stt.started()
        await phone.settle(70)
        assert phone.said[3] == ("bot", SAY.still_there)


@both_paths
async def test_whoever_goes_on_speaking_is_not_asked(tmp_path: Path, media: MediaPath) -> None:
    async with open_phone(tmp_path, media=media, config=SILENCE) as phone:
        await greeted(phone)
        for _ in range(4):
            await phone.settle(3)
            if media is MediaPath.NATIVE:
                token = phone.record.listen_token
                await phone.event(ev.SpeechHeard, text="Well", turn_token=token, final=False)
            else:
                phone.stt.partial("Well")
        await phone.settle(1)
        assert len(phone.said) == 1


async def test_nobody_is_asked_while_the_agent_works_or_an_answer_is_awaited(
    tmp_path: Path,
) -> None:
    config = {**SILENCE, "fillerAfterMs": 0}
    async with open_phone(tmp_path, config=config) as phone:
        await greeted(phone)
        phone.agent.then(20.0, "Found it.")
        phone.hears("Look.")
        await phone.settle(21)
        assert ("bot", SAY.still_there) not in phone.said

        async def ask() -> None:
            await phone.operations.ask(phone.record.call_id, QUESTION)

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask)
            await phone.settle(30)
            assert ("bot", SAY.still_there) not in phone.said
            phone.hears("Anna.")
