"""Failing agents, voices and recognisers: the caller hears a filler, a phrase or a goodbye."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.agent import AgentBackend, AgentTurn, ToolActivity
from voicecall.errors import ProviderUnavailable
from voicecall.model import EndDetail, EndReason, MediaPath
from voicecall.transcription import Final, Partial
from voicecall_calls.config import PhrasesConfig
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import ScriptedAgentBackend, ScriptedSpeech
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

SAY = PhrasesConfig()


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def trouble() -> ProviderUnavailable:
    return ProviderUnavailable("no way there", provider="scripted")


class Forgetful(ScriptedAgentBackend):
    """An agent whose ``settle`` raises ``error`` or never returns."""

    def __init__(self, error: Exception | SystemExit | None) -> None:
        super().__init__()
        self.error = error

    async def settle(self, turn: AgentTurn, heard_text: str) -> None:
        await super().settle(turn, heard_text)
        if self.error is not None:
            raise self.error
        await anyio.sleep_forever()


class Dripping(ScriptedSpeech):
    """A voice whose pieces of a tenth of a second come slowly."""

    pause_s = 0.5

    async def synthesize(self, text: str, voice: str | None) -> AsyncIterator[bytes]:
        async for piece in super().synthesize(text, voice):
            await anyio.sleep(self.pause_s)
            yield piece


async def greeted(phone: Phone) -> None:
    await phone.call_in()
    await phone.settle(3)


async def test_a_slow_agent_is_covered_by_a_filler_and_again(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"fillerAfterMs": 1000}) as phone:
        await greeted(phone)
        phone.agent.then(14.0, "Here you are.")
        phone.hears("Look it up.")
        await phone.settle(0.95)
        assert phone.heard == [SAY.greeting]
        await phone.settle(2)
        assert phone.heard == [SAY.greeting, SAY.filler]
        # Eight seconds after the end of the first one.
        await phone.settle(6.5)
        assert phone.heard == [SAY.greeting, SAY.filler]
        await phone.settle(12)
        assert phone.said[2:] == [
            ("bot", SAY.filler),
            ("bot", SAY.filler),
            ("bot", "Here you are."),
        ]
        reply = (await phone.rows())[-1]
        assert reply.filler
        assert reply.failed is None


async def test_a_caller_who_goes_on_is_not_asked_to_say_it_again(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(1.0, trouble())
        phone.hears("My number is five, five, five.")
        await phone.settle(0.5)
        phone.stt.started()
        phone.stt.partial("zero")
        await phone.settle(2)
        assert phone.heard == [SAY.greeting]
        phone.stt.final("Zero, one.")
        phone.stt.ended()
        await phone.settle(3)
        assert phone.heard == [SAY.greeting, "Yes."]


async def test_a_quick_agent_needs_no_filler(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"fillerAfterMs": 1000}) as phone:
        await greeted(phone)
        phone.agent.then(0.9, "Here you are.")
        phone.hears("Look it up.")
        await phone.settle(4)
        assert phone.heard == [SAY.greeting, "Here you are."]
        assert not (await phone.rows())[-1].filler


@pytest.mark.parametrize("config", [{"fillerAfterMs": 0}, {"phrases": {"filler": ""}}])
async def test_no_filler_where_it_is_turned_off_or_has_no_words(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    async with open_phone(tmp_path, config=config) as phone:
        await greeted(phone)
        phone.agent.then(20.0, "Here you are.")
        phone.hears("Look it up.")
        await phone.settle(23)
        assert phone.heard == [SAY.greeting, "Here you are."]
        assert not (await phone.rows())[-1].filler


async def test_a_carrier_does_not_listen_with_a_filler(tmp_path: Path) -> None:
    config = {"fillerAfterMs": 1000}
    async with open_phone(tmp_path, media=MediaPath.NATIVE, config=config) as phone:
        await greeted(phone)
        phone.agent.then(4.0, "Here you are.")
        token = phone.record.listen_token
        await phone.event(ev.SpeechHeard, text="Look it up.", turn_token=token)
        await phone.settle(8)
        spoken = [one for one in phone.carrier.performed if isinstance(one, tel.Speak)]
        assert [(one.text, one.listen is not None) for one in spoken] == [
            (SAY.greeting, True),
            (SAY.filler, False),
            ("Here you are.", True),
        ]


async def test_a_carrier_that_speaks_whole_answers_has_fillers_until_the_last_word(
    tmp_path: Path,
) -> None:
    config = {"fillerAfterMs": 1000}
    async with open_phone(tmp_path, media=MediaPath.NATIVE, config=config) as phone:
        await greeted(phone)
        phone.agent.then("There are two ways. The first is long.", 4.0, " The other is not.")
        token = phone.record.listen_token
        await phone.event(ev.SpeechHeard, text="Which way?", turn_token=token)
        await phone.settle(8)
        whole = "There are two ways. The first is long. The other is not."
        assert phone.said[2:] == [("bot", SAY.filler), ("bot", whole)]


async def test_words_before_a_tool_are_not_kept_until_it_is_done(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"fillerAfterMs": 1000}) as phone:
        await greeted(phone)
        tool = (ToolActivity("find", True), 14.0, ToolActivity("find", False))
        phone.agent.then("I will look.", *tool, "Here you are.")
        phone.hears("Look it up.")
        await phone.settle(3)
        assert phone.heard == [SAY.greeting, "I will look."]
        await phone.settle(8)
        assert phone.heard == [SAY.greeting, "I will look.", SAY.filler]
        await phone.settle(8)
        assert phone.said[2:] == [("bot", f"I will look. {SAY.filler} Here you are.")]


async def test_words_before_a_tool_and_behind_it_are_one_answer_of_a_carrier(
    tmp_path: Path,
) -> None:
    config = {"fillerAfterMs": 1000}
    async with open_phone(tmp_path, media=MediaPath.NATIVE, config=config) as phone:
        await greeted(phone)
        phone.agent.then("I will look.", ToolActivity("find", True), 4.0, " Here you are.")
        token = phone.record.listen_token
        await phone.event(ev.SpeechHeard, text="Look it up.", turn_token=token)
        await phone.settle(8)
        assert phone.said[2:] == [("bot", SAY.filler), ("bot", "I will look. Here you are.")]


async def test_a_filler_is_interrupted_like_any_other_words(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"fillerAfterMs": 1000}) as phone:
        await greeted(phone)
        phone.agent.then(10.0, "Too late.")
        phone.hears("Look it up.")
        await phone.settle(1.3)
        phone.stt.started()
        phone.stt.partial("Never")
        await phone.settle(0.05)
        assert phone.socket.clears == 1
        phone.stt.final("Never mind.")
        phone.stt.ended()
        await phone.settle(12)
        assert phone.agent.asked == ["Look it up.", "Never mind."]
        assert "Too late." not in phone.heard
        assert phone.heard[-1] == "Yes."


async def test_an_acknowledgement_of_a_filler_does_not_begin_anew(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"fillerAfterMs": 1000}) as phone:
        await greeted(phone)
        phone.agent.then(4.0, "Here you are.")
        phone.hears("Look it up.")
        await phone.settle(1.5)
        phone.hears("Mhm.")
        await phone.settle(1.5)
        phone.hears("Mhm.")
        await phone.settle(4)
        assert phone.agent.asked == ["Look it up."]
        assert phone.heard == [SAY.greeting, SAY.filler, "Here you are."]


async def test_one_failure_of_the_agent_is_admitted_and_two_end_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(trouble())
        phone.agent.then(trouble())
        phone.hears("First.")
        await phone.settle(4)
        assert phone.heard == [SAY.greeting, SAY.not_understood]
        assert phone.record.live
        phone.hears("Second.")
        await phone.settle(8)
        assert phone.heard == [SAY.greeting, SAY.not_understood, SAY.failed]
        assert phone.record.end_reason is EndReason.ERROR
        assert phone.record.end_detail is EndDetail.AGENT_FAILED
        failed = [row.failed for row in await phone.rows() if row.kind == "reply"]
        assert failed == ["scripted: no way there"] * 2


async def test_an_agent_that_yields_what_is_no_event_is_told_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Plain(AgentBackend):
        async def reply(self, turn: AgentTurn) -> AsyncIterator[Any]:
            yield "Good morning."

    async with open_phone(tmp_path, agent=Plain()) as phone:
        await greeted(phone)
        phone.hears("First.")
        await phone.settle(4)
        assert phone.heard == [SAY.greeting, SAY.not_understood]
    assert "str is not an event of an agent" in caplog.text


async def test_a_success_in_between_counts_failures_anew(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(trouble())
        phone.agent.then("Now it works.")
        phone.agent.then(trouble())
        for word in ("First.", "Second.", "Third."):
            phone.hears(word)
            await phone.settle(4)
        assert phone.record.live
        assert phone.heard[-1] == SAY.not_understood


@pytest.mark.parametrize("error", [ZeroDivisionError("its own fault"), SystemExit(3)])
async def test_an_agent_that_raises_anything_does_not_break_the_call(
    tmp_path: Path, error: Exception | SystemExit
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(error)
        phone.hears("First.")
        await phone.settle(4)
        assert phone.heard[-1] == SAY.not_understood
        phone.hears("Second.")
        await phone.settle(3)
        assert phone.heard[-1] == "Yes."


async def test_a_failure_that_is_told_with_half_a_character_is_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Reports of tests, which have the log in them, cannot be sent with it.
    caplog.set_level(logging.CRITICAL, "voicecall.calls")
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(ProviderUnavailable("it said \ud83d", provider="agent"))
        phone.hears("First.")
        await phone.settle(4)
        assert phone.record.live
        assert phone.said[-1] == ("bot", SAY.not_understood)
        failures = [row.failed for row in await phone.rows() if row.failed is not None]
        assert failures == ["agent: it said \ufffd"]


@pytest.mark.parametrize("error", [trouble(), KeyError("mine"), SystemExit(3), None])
async def test_an_agent_that_cannot_note_what_was_heard_goes_on(
    tmp_path: Path, error: Exception | SystemExit | None
) -> None:
    agent = Forgetful(error)
    async with open_phone(tmp_path, agent=agent) as phone:
        await greeted(phone)
        agent.then("It was a dark and stormy night in the old town.")
        phone.hears("Tell me a story.")
        await phone.settle(1)
        phone.hears("Stop, please.")
        await phone.settle(7)
        assert [text for text, _ in agent.settled] == ["Tell me a story."]
        assert phone.said[-2:] == [("user", "Stop, please."), ("bot", "Yes.")]
        assert phone.record.live


async def test_an_agent_that_cannot_be_stopped_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.stops = False
        phone.agent.then(3600.0, "Never heard.")
        phone.hears("Tell me a story.")
        await phone.settle(1)
        phone.hears("Stop, please.")
        await phone.settle(4)
        assert phone.said[-2:] == [("user", "Stop, please."), ("bot", "Yes.")]
        phone.agent.then(3600.0, "Never heard.")
        phone.hears("Tell me another one.")
        await phone.settle(1)
        await phone.hang_up()
        await phone.settle(3)
        assert not phone.engine.lanes
    assert caplog.text.count("the agent does not end when it is cancelled; it is abandoned") == 2


@pytest.mark.parametrize("error", [trouble(), KeyError("mine")], ids=["theirs", "mine"])
async def test_what_came_before_the_failure_is_spoken(tmp_path: Path, error: Exception) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then("The first half. And the", error)
        phone.hears("Tell me.")
        await phone.settle(6)
        assert phone.heard[1] == "The first half."
        assert phone.heard[-1] == SAY.not_understood
        assert phone.record.live


async def test_an_empty_answer_is_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then()
        phone.agent.then("<think>Nothing to say.</think>")
        phone.hears("First.")
        await phone.settle(4)
        assert phone.heard == [SAY.greeting, SAY.not_understood]
        assert (await phone.rows())[-1].failed == "it said nothing"
        phone.hears("Second.")
        await phone.settle(8)
        assert phone.record.end_detail is EndDetail.AGENT_FAILED
    assert caplog.text.count(f"call {phone.record.call_id}: the agent failed: it said nothing") == 2


async def test_an_agent_gets_so_much_time_and_no_more(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"responseTimeoutMs": 5000}) as phone:
        await greeted(phone)
        phone.agent.then(60.0, "Too late.")
        phone.hears("First.")
        await phone.settle(10)
        assert phone.heard == [SAY.greeting, SAY.filler, SAY.not_understood]
        row = (await phone.rows())[-1]
        assert row.failed == "no answer within 5 s"
        assert row.agent_start is not None
        assert row.agent_done is not None
        assert row.agent_done - row.agent_start == pytest.approx(5000, abs=2)


async def test_a_voice_that_fails_once_is_covered_and_twice_ends_the_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.tts.errors.extend([trouble(), None, trouble(), None, trouble(), trouble()])
        phone.hears("First.")
        await phone.settle(4)
        assert caplog.text.count(f"{phone.record.call_id}: speech failed: scripted: no way") == 1
        assert phone.heard == [SAY.greeting, SAY.not_understood]
        assert ("bot", "Yes.") not in phone.said
        assert phone.agent.settled == [("First.", "")]
        phone.hears("Second.")
        await phone.settle(4)
        assert phone.said.count(("bot", SAY.not_understood)) == 2
        assert phone.record.ending is None
        phone.hears("Third.")
        await phone.settle(4)
        assert phone.record.end_reason is EndReason.ERROR
        assert phone.record.end_detail is EndDetail.SPEECH_FAILED
        assert caplog.text.count("speech failed") == 4


async def test_what_was_heard_before_a_voice_failed_is_known(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"fillerAfterMs": 0}) as phone:
        await greeted(phone)
        story = "It was a dark and stormy night in the old town."
        phone.agent.then(f"{story} And", 1.5, " it rained.")
        phone.tts.errors.extend([None, trouble()])
        phone.hears("Tell me.")
        await phone.settle(6)
        [(_, heard)] = phone.agent.settled
        assert len("It was") < len(heard) < len(story)
        assert story.startswith(heard)
        assert phone.said[1:] == [("user", "Tell me."), ("bot", heard), ("bot", SAY.not_understood)]
        assert [entry.complete for entry in phone.record.transcript[2:]] == [False, True]


async def test_a_voice_without_audio_has_failed(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.tts.mute.add("Yes.")
        phone.hears("First.")
        await phone.settle(4)
        assert phone.heard == [SAY.greeting, SAY.not_understood]


async def test_a_voice_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"tts": {"timeoutMs": 2000}}) as phone:
        await greeted(phone)
        phone.tts.delay_s = 60.0
        phone.hears("First.")
        # Twice the patience, then the carrier's own voice.
        await phone.settle(10)
        assert phone.record.end_detail is EndDetail.SPEECH_FAILED
        assert phone.heard == [SAY.greeting]


async def test_a_voice_that_takes_long_is_heard_to_its_end_while_audio_comes(
    tmp_path: Path,
) -> None:
    tts = Dripping()
    async with open_phone(tmp_path, speech=tts, config={"tts": {"timeoutMs": 2000}}) as phone:
        await phone.call_in()
        await phone.settle(20)
        assert phone.said == [("bot", SAY.greeting)]
        [(text, milliseconds)] = tts.texts_in(bytes(phone.socket.heard))
        assert text == SAY.greeting
        assert milliseconds == pytest.approx(tts.duration_s(SAY.greeting) * 1000)
        assert milliseconds / 100 * tts.pause_s > 2 * 2.0


async def test_a_greeting_that_cannot_be_spoken_is_tried_again_then_the_call_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path) as phone:
        phone.tts.errors.append(trouble())
        await phone.call_in()
        await phone.settle(4)
        assert caplog.text.count(f"{phone.record.call_id}: speech failed: scripted: no way") == 1
        assert phone.heard == [SAY.greeting]
        assert phone.record.message is not None
        assert phone.record.message.attempts == 2
        assert phone.said == [("bot", SAY.greeting)]
    async with open_phone(tmp_path / "again") as phone:
        phone.tts.errors.extend([trouble()] * 2)
        await phone.call_in()
        await phone.settle(10)
        assert phone.said == [("bot", SAY.failed)]
        assert phone.record.end_detail is EndDetail.MESSAGE_FAILED


async def test_a_carriers_own_voice_is_tried_again_too(tmp_path: Path) -> None:
    from voicecall.telephony import Speak

    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        phone.carrier.fail(Speak, trouble())
        await phone.call_in()
        await phone.settle(0.1)
        assert phone.record.message is not None
        assert phone.record.message.attempts == 1
        assert phone.said == []
        await phone.settle(5)
        assert phone.said == [("bot", SAY.greeting)]
        assert len(phone.carrier.performed_of(Speak)) == 2


async def test_a_lost_recogniser_is_opened_again_and_misses_nothing(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.stt.lost()
        await phone.settle(0.1)
        await phone.socket.speak(b"\x11" * 800)
        await phone.settle(0.5)
        assert len(phone.stt.sessions) == 2
        assert bytes(phone.stt.current.audio) == b"\x11" * 800
        phone.hears("Still there?")
        await phone.settle(2)
        assert phone.heard[-1] == "Yes."


async def test_words_that_a_lost_recogniser_had_understood_are_answered(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then("It was a dark and stormy night in the old town.")
        phone.hears("Tell me a story.")
        await phone.settle(1)
        phone.stt.started()
        phone.stt.partial("Please stop")
        phone.stt.lost()
        await phone.settle(3)
        assert phone.said[-2:] == [("user", "Please stop"), ("bot", "Yes.")]


async def test_a_recogniser_that_tells_words_alone_is_answered(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.3)
        # Into the greeting, which is protected.
        phone.hears("Hello?")
        await phone.settle(3)
        assert phone.said[-1] == ("bot", SAY.greeting)
        long = "That is a long story, of many words, that nobody wants to hear to its end."
        for number in (7, 8):
            phone.agent.then(long)
            final = Final(utterance=number, at_ms=phone.stt.current.at_ms, text="Tell me more.")
            phone.stt.current.tell(final)
            await phone.settle(1.5)
            assert phone.said[-1] == ("user", "Tell me more.")
            clears = phone.socket.clears
            at_ms = phone.stt.current.at_ms
            phone.stt.current.tell(Partial(utterance=number + 10, at_ms=at_ms, text="Stop it"))
            await phone.settle(0.1)
            assert phone.socket.clears == clears + 1
            phone.stt.current.tell(Final(utterance=number + 10, at_ms=at_ms, text="Stop it."))
            await phone.settle(2)
            assert phone.said[-2:] == [("user", "Stop it."), ("bot", "Yes.")]


async def test_a_sound_in_which_the_recogniser_is_lost_does_not_interrupt(tmp_path: Path) -> None:
    story = "It was a dark and stormy night in the old town."
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(story)
        phone.hears("Tell me a story.")
        await phone.settle(1)
        phone.stt.started()
        await phone.settle(0.1)
        phone.stt.lost()
        await phone.settle(3)
        assert phone.said[-1] == ("bot", story)


async def test_a_caller_who_can_not_be_heard_is_told_so(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.stt.open_errors.extend([trouble()] * 3)
        phone.stt.lost()
        await phone.settle(12)
        assert phone.heard == [SAY.greeting, SAY.cannot_hear]
        assert phone.record.end_reason is EndReason.ERROR
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_a_caller_who_can_not_be_heard_waits_for_no_answer(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(20.0, "Too late.")
        phone.hears("Look it up.")
        await phone.settle(0.5)
        phone.stt.open_errors.extend([trouble()] * 3)
        phone.stt.lost()
        await phone.settle(8)
        assert SAY.cannot_hear in phone.heard
        assert phone.agent.settled == [("Look it up.", "")]


async def test_a_carriers_own_voice_that_breaks_off_is_apologised_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        phone.plays = False
        token = phone.record.listen_token
        await phone.event(ev.SpeechHeard, text="Hello?", turn_token=token)
        await phone.settle(0.5)
        utterance = phone.record.utterance
        assert utterance is not None
        await phone.event(ev.PlaybackEnded, utterance_id=utterance.id, ok=False)
        await phone.settle(0.5)
        spoken = [one.text for one in phone.carrier.performed if isinstance(one, tel.Speak)]
        assert spoken == [SAY.greeting, "Yes.", SAY.not_understood]
        assert ("bot", "Yes.") not in phone.said
        assert "speech failed: the carrier could not play it" in caplog.text


async def test_a_recogniser_that_never_comes_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "voicecall.phases")
    async with open_phone(tmp_path) as phone:
        phone.stt.open_errors.extend([trouble()] * 10)
        await phone.call_in()
        await phone.settle(20)
        assert phone.heard[-1] == SAY.cannot_hear
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED
    assert "transcription lost\n" in caplog.text
    assert "transcription ready" not in caplog.text
