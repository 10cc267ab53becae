"""Calls held by a full-duplex voice model, on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import telephony as tel
from voicecall.errors import CallNotReady, ProviderUnavailable
from voicecall.model import CallMode, CallState, EndDetail, EndReason, MessageState
from voicecall.realtime import (
    Interrupted,
    Interrupter,
    RealtimeCapabilities,
    RealtimeEvent,
    RealtimeOptions,
    ResponseDone,
    ResponseStarted,
    SessionExpiring,
    SessionLost,
    SessionReset,
    SpeechStarted,
    SpeechStopped,
    Transcript,
    Usage,
    Verbatim,
)
from voicecall_calls.conversation.realtime.conversation import RealtimeConversation
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime, ScriptedRealtimeSession
from voicecall_testing.echo import LINE_CHECK, EchoProvider
from voicecall_testing.fakes import STREAMING
from voicecall_testing.harness import Phone

from .asking import QUESTION, asked
from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

GREETING = "Good day, this is the desk."
HELLO = "Hello there, how are you?"
QUIET = b"\xff" * 160
LOUD = b"\x20" * 160


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


def talk(phone: Phone) -> RealtimeConversation:
    conversation = phone.lane.conversation
    assert isinstance(conversation, RealtimeConversation)
    return conversation


async def greeted(phone: Phone) -> None:
    """A call whose greeting is over."""
    await phone.call_in()
    await phone.settle(1.5)
    assert phone.record.message is not None
    assert phone.record.message.state is MessageState.DONE


class _LostSession(ScriptedRealtimeSession):
    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        yield SessionLost("gone", fatal=True)


class _Lost(ScriptedRealtime):
    """Its first session is lost as soon as it is open."""

    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        if self.sessions:
            async with super().session(options) as session:
                yield session
        else:
            lost = _LostSession(self, options)
            self.sessions.append(lost)
            with closing(lost):
                yield lost


async def answered(phone: Phone) -> None:
    """A call without a first message, with its media socket open."""
    await phone.dial()
    await phone.answer()
    await phone.settle(0.1)


def muted(model: ScriptedRealtime) -> bool:
    return model.current.muted


async def test_after_a_restart_the_model_tells_of_it(tmp_path: Path) -> None:
    async with open_realtime(tmp_path, ScriptedRealtime()) as phone:
        await greeted(phone)
        call_id = phone.record.call_id
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, seed=1) as phone:
        await phone.settle(5)
        assert phone.record.call_id == call_id
        assert model.current.asked == [("say", phone.config.phrases.resumed)]


# --- audio ------------------------------------------------------------------------------------


async def test_an_echo_call_returns_the_audio_bit_exact(tmp_path: Path) -> None:
    async with open_realtime(tmp_path, EchoProvider()) as phone:
        await phone.call_in()
        await phone.socket.speak(QUIET * 60)
        speech = bytes((n * 7) % 255 for n in range(160 * 250))
        await phone.socket.speak(speech)
        assert speech in phone.socket.audio_sent
        await phone.settle(1)
        assert speech in bytes(phone.socket.heard)
        assert ("bot", LINE_CHECK) in phone.said
        await phone.hang_up()
        rows = await phone.rows()
        assert {row.kind for row in rows} == {"realtime"}
        assert len(rows) >= 3
        assert all(row.first_audio_sent is not None for row in rows)
        assert phone.record.state is CallState.HANGUP_USER


async def test_every_frame_of_an_echo_leaves_at_once(tmp_path: Path) -> None:
    async with open_realtime(tmp_path, EchoProvider()) as phone:
        await phone.call_in()
        await phone.socket.speak(QUIET * 100)
        for number in range(200):
            before = len(phone.socket.audio_sent)
            await phone.socket.speak(bytes([number]) * 160)
            assert phone.socket.audio_sent[before:] == bytes([number]) * 160


async def test_the_caller_is_heard_from_the_first_frame_on(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        await phone.socket.speak(LOUD * 10)
        assert bytes(model.current.audio) == LOUD * 10


async def test_other_formats_are_converted(tmp_path: Path) -> None:
    from voicecall.audio import PCM16_16K, PCM16_24K

    model = ScriptedRealtime(RealtimeCapabilities(formats=(PCM16_24K, PCM16_16K)))
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        assert model.current.options.input_format == PCM16_24K
        await phone.socket.speak(LOUD * 50)
        assert PCM16_24K.duration_ms(len(model.current.audio)) == pytest.approx(1000, abs=10)
        model.current.speak("Yes.", 500)
        await phone.settle(1)
        assert len(phone.socket.audio_sent) / 8 == pytest.approx(500, abs=10)


async def test_half_a_sample_waits_for_its_other_half(tmp_path: Path) -> None:
    from voicecall.audio import PCM16_16K

    model = ScriptedRealtime(RealtimeCapabilities(formats=(PCM16_16K,)))
    audio = bytes(range(256)) * 25
    async with open_realtime(tmp_path, model) as phone:
        phone.audio_format = PCM16_16K
        await answered(phone)
        before = len(phone.socket.audio_sent)
        assert model.current.options.output_format == PCM16_16K
        for start in range(0, len(audio), 641):
            # In real time, so that each piece leaves as a message of its own.
            model.current.options.sink.write("item-9", audio[start : start + 641])
            await phone.settle(0.02)
            assert len(phone.socket.audio_sent) % 2 == 0
        await phone.settle(1)
        assert phone.socket.audio_sent[before:] == audio


# --- the greeting -----------------------------------------------------------------------------


async def test_the_model_opens_with_the_greeting(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, inboundGreeting=GREETING) as phone:
        await greeted(phone)
        ((kind, text),) = model.current.asked
        assert kind == "greet"
        assert GREETING in text
        assert phone.said == [("bot", HELLO)]


async def test_a_verbatim_model_says_the_greeting(tmp_path: Path) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(verbatim=Verbatim.FIXTURE))
    async with open_realtime(tmp_path, model, inboundGreeting=GREETING) as phone:
        await greeted(phone)
        assert model.current.asked == [("say", GREETING)]
        assert phone.said == [("bot", GREETING)]


async def test_the_greeting_is_protected_for_a_moment(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.answer_ms = 3000
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        assert muted(model)
        model.current.tell(Interrupted())
        await phone.settle(0.2)
        assert phone.socket.clears == 0
        await phone.settle(0.5)
        assert not muted(model)
        model.current.tell(Interrupted())
        await phone.settle(0.1)
        assert phone.socket.clears == 1
        assert phone.record.message is not None
        assert phone.record.message.state is MessageState.DONE


@pytest.mark.parametrize("how", ["keys", "speech"])
async def test_keys_and_going_on_speaking_break_the_protection(tmp_path: Path, how: str) -> None:
    model = ScriptedRealtime()
    model.answer_ms = 20_000
    config: dict[str, Any] = {"bargeIn": {"greetingProtectionMs": 10_000}}
    async with open_realtime(tmp_path, model, **config) as phone:
        await phone.call_in()
        await phone.socket.speak(LOUD * 25)
        await phone.socket.speak(QUIET * 25)
        assert phone.socket.clears == 0
        if how == "keys":
            phone.socket.press("1")
        else:
            await phone.socket.speak(LOUD * 55)
        await phone.settle(0.1)
        assert phone.socket.clears == 1
        assert not muted(model)
        assert len(model.current.interrupts) == 1
        (row,) = await phone.rows()
        assert row.barge_in_stop_ms == (None if how == "keys" else 1000)


async def test_speech_that_breaks_the_protection_is_heard_from_its_beginning(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    model.answer_ms = 20_000
    async with open_realtime(tmp_path, model, bargeIn={"greetingProtectionMs": 10_000}) as phone:
        await phone.call_in()
        await phone.socket.speak(LOUD * 25)
        await phone.socket.speak(QUIET * 25)
        before = len(model.current.audio)
        await phone.socket.speak(LOUD * 40 + QUIET * 5 + LOUD * 20)
        heard = bytes(model.current.audio[before:])
        # Not what was said before it.
        assert heard.count(LOUD[:1]) == len(LOUD) * 60
        assert heard.endswith(LOUD * 40 + QUIET * 5 + LOUD * 20)


@pytest.mark.parametrize("interrupts", [Interrupter.SERVER, Interrupter.CLIENT])
@pytest.mark.parametrize("frames", [20, 80])
async def test_what_is_said_before_the_session_is_open_does_not_take_the_greetings_place(
    tmp_path: Path, interrupts: Interrupter, frames: int
) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(interrupts=interrupts))
    model.open_delay_s = 2.0
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        # "Hello?", or somebody who goes on speaking: that breaks the protection here, too.
        await phone.socket.speak(QUIET * 5 + LOUD * frames)
        await phone.settle(1.91 - frames * 0.02)
        assert [kind for kind, _ in model.current.asked] == ["greet"]
        heard = bytes(model.current.audio)
        assert len(heard) >= 160 * frames
        assert heard.count(LOUD[:1]) == (160 * frames if frames == 80 else 0)
        await phone.settle(3)
        assert phone.said == [("bot", HELLO)]
        assert not muted(model)


async def test_a_session_that_is_lost_before_its_greeting_leaves_nothing_muted(
    tmp_path: Path,
) -> None:
    model = _Lost()
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        await phone.settle(0.05)
        assert not muted(model)
        await phone.settle(3)
        assert phone.said == [("bot", HELLO)]
        assert not muted(model)


async def test_without_protection_the_caller_is_heard_before_the_greeting(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.idle = True
    async with open_realtime(tmp_path, model, bargeIn={"greetingProtectionMs": 0}) as phone:
        await phone.call_in()
        await phone.settle(0.5)
        assert not muted(model)
        model.current.speak(HELLO, 2000)
        await phone.settle(0.1)
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.1)
        assert phone.socket.clears == 1


async def test_without_barge_in_the_greeting_is_protected_to_its_end(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.answer_ms = 5000
    barge_in = {"enabled": False, "greetingProtectionMs": 0}
    async with open_realtime(tmp_path, model, bargeIn=barge_in) as phone:
        await phone.call_in()
        await phone.socket.speak(LOUD * 100)
        assert muted(model)
        assert phone.socket.clears == 0
        await phone.settle(4)
        assert not muted(model)


async def test_what_a_protected_greeting_drowned_is_not_waited_for(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, bargeIn={"greetingProtectionMs": 10_000}) as phone:
        await phone.call_in()
        # Nobody hears this "hello?", so no words of it come.
        await phone.socket.speak(LOUD * 10 + QUIET * 15)
        await phone.settle(1)
        assert phone.said == [("bot", HELLO)]
        async with asked(phone) as answers:
            await phone.settle(0.5)
            assert model.current.asked[-1] == ("say", QUESTION)
            await phone.settle(1)
            model.current.hears("Ann.")
        assert answers == ["Ann."]
        assert (await phone.rows())[-1].speech_started is None


async def test_a_greeting_that_fails_is_tried_again_then_the_call_ends(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.silent = True
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        await phone.settle(10)
        greetings = [kind for kind, _ in model.sessions[0].asked if kind == "greet"]
        assert len(greetings) == 2
        assert phone.record.end_detail is EndDetail.MESSAGE_FAILED
        assert phone.said == [("bot", phone.config.phrases.failed)]


async def test_a_refused_greeting_is_tried_again(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.refusals.append(ProviderUnavailable("busy", provider="model"))
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        await phone.settle(4)
        assert phone.said == [("bot", HELLO)]


async def test_a_reset_before_the_greeting_begins_has_it_asked_for_anew(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.idle = True
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        await phone.settle(0.5)
        model.current.tell(SessionReset())
        await phone.settle(0.1)
        assert muted(model)
        model.idle = False
        model.current.tell(SessionReset())
        await phone.settle(0.1)
        assert muted(model)
        await phone.settle(2)
        assert [kind for kind, _ in model.current.asked] == ["greet"] * 3
        assert phone.said == [("bot", HELLO)]
        assert not muted(model)
        assert phone.record.message is not None
        assert phone.record.message.attempts == 1


async def test_a_greeting_that_another_session_is_asked_for_is_asked_for_once(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    model.refusals.append(ProviderUnavailable("busy", provider="model"))
    async with open_realtime(tmp_path, model) as phone:
        await phone.call_in()
        await phone.settle(0.5)
        model.idle = True
        # It would be tried again a moment later.
        model.current.tell(SessionLost("gone", fatal=True))
        await phone.settle(5)
        assert len(model.sessions) == 2
        assert [kind for kind, _ in model.current.asked] == ["greet"]
        model.current.speak(HELLO, 1000)
        await phone.settle(2)
        assert phone.said == [("bot", HELLO)]


async def test_a_notification_is_spoken_and_the_call_ends(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, outbound={"notifyHangupDelaySec": 1}) as phone:
        await phone.dial("Your table is ready.", CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(0.1)
        await phone.socket.speak(LOUD * 20)
        assert muted(model)
        assert model.current.options.tools == ()
        await phone.settle(1)
        # Whoever was called is not talked to behind it either.
        assert phone.said == [("bot", HELLO)]
        assert muted(model)
        await phone.settle(4)
        assert phone.record.end_detail is EndDetail.NOTIFIED
        assert [who for who, _ in phone.said] == ["bot"]


# --- words ------------------------------------------------------------------------------------


async def test_the_callers_words_are_recorded_and_the_agent_is_not_asked(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        session = model.current
        session.tell(SpeechStarted(0))
        await phone.settle(0.5)
        session.tell(SpeechStopped(500), Transcript("user", "c", "What ti", final=False))
        session.hears("What time is it?")
        await phone.settle(0.3)
        session.speak("It is noon.", 400)
        await phone.settle(1)
        assert phone.said[1:] == [("user", "What time is it?"), ("bot", "It is noon.")]
        assert phone.agent.turns == []
        row = (await phone.rows())[-1]
        assert row.kind == "realtime"
        assert row.speech_ended is not None
        assert row.latency_ms == pytest.approx(300, abs=5)
        assert row.playback_done is not None
        assert row.barge_in_at is None
        # What the model says of its own accord answers nothing.
        session.speak("Anything else?", 400)
        await phone.settle(1)
        assert (await phone.rows())[-1].speech_ended is None
        assert phone.watcher.turns == await phone.rows()


@pytest.mark.parametrize("items", [1, 2])
async def test_words_that_come_behind_their_answer_stand_before_it(
    tmp_path: Path, items: int
) -> None:
    async with open_realtime(tmp_path, model := ScriptedRealtime()) as phone:
        await answered(phone)
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.5)
        model.current.tell(SpeechStopped(500))
        await phone.settle(0.1)
        for text in ("Yes.", "Until six.")[:items]:
            model.current.speak(text, 200)
        await phone.settle(0.9)
        model.current.hears("Are you open?")
        await phone.settle(1)
        answers = [("bot", "Yes."), ("bot", "Until six.")][:items]
        assert phone.said == [("user", "Are you open?"), *answers]
        (row,) = [row for row in await phone.rows() if row.speech_started is not None]
        assert (row.stt_final or 0) > (row.first_audio_sent or 0) > 0
        # They have their answer: nobody owes them one.
        model.current.end()
        await phone.settle(1)
        assert model.current.asked == []


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_an_answer_to_a_sound_without_words_is_recorded(
    tmp_path: Path, hangs_up: bool
) -> None:
    async with open_realtime(tmp_path, model := ScriptedRealtime()) as phone:
        await answered(phone)
        call_id = phone.record.call_id
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.5)
        model.current.tell(SpeechStopped(500))
        await phone.settle(0.1)
        model.current.speak("Pardon?", 200)
        await phone.settle(0.6)
        if hangs_up:
            await phone.hang_up()
        await phone.settle(1)
        stored = await phone.store.load(call_id)
        assert stored is not None
        assert [(entry.text, entry.complete) for entry in stored.transcript] == [("Pardon?", True)]


async def test_a_sound_without_words_answers_nothing(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        async with asked(phone) as answers:
            await phone.settle(2)
            model.current.hears(" ")
            await phone.settle(0.5)
            model.current.hears(" Ann. ")
        assert answers == ["Ann."]
        assert phone.said[-1] == ("user", "Ann.")


async def test_text_before_the_audio_and_in_pieces(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        session = model.current
        session.tell(Transcript("assistant", "x", "One ", final=False))
        session.tell(Transcript("assistant", "x", "two ", final=False))
        await phone.settle(0.1)
        session.write("x", 100)
        session.tell(Transcript("assistant", "x", "three.", final=False))
        session.tell(ResponseDone("r", "completed"))
        await phone.settle(3)
        assert phone.said[-1] == ("bot", "One two three.")


async def test_a_piece_behind_the_whole_text_adds_nothing(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        session = model.current
        session.write("x", 100)
        session.tell(Transcript("assistant", "x", "One two three.", final=True))
        session.tell(Transcript("assistant", "x", "three.", final=False))
        session.tell(ResponseDone("r", "completed"))
        await phone.settle(3)
        assert phone.said[-1] == ("bot", "One two three.")


async def test_text_may_come_a_while_behind_the_audio(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.write("x", 300)
        model.current.tell(ResponseDone("r", "completed", items=("x",)))
        await phone.settle(0.9)
        model.current.tell(Transcript("assistant", "x", "Late words.", final=True))
        await phone.settle(1)
        assert phone.said == [("bot", "Late words.")]


async def test_audio_behind_the_end_of_its_response_is_an_utterance_of_its_own(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        for text in ("It is noon.", "Or nearly."):
            model.current.write("x", 300)
            model.current.tell(Transcript("assistant", "x", text, final=True))
            model.current.tell(ResponseDone("r", "completed", items=("x",)))
            await phone.settle(0.05)
        model.current.write("x", 300)
        await phone.settle(1)
        model.current.speak("Anything else?", 500)
        await phone.settle(3)
        assert [text for _, text in phone.said] == ["It is noon.", "Or nearly.", "Anything else?"]
        assert len(phone.socket.audio_sent) == 1400 * 8


async def test_the_next_item_ends_the_one_before_it(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        for item, milliseconds in (("x", 300), ("y", 5000)):
            model.current.write(item, milliseconds)
            model.current.tell(Transcript("assistant", item, f"It is {item}.", final=True))
        await phone.settle(2)
        assert phone.said == [("bot", "It is x.")]


# --- interruptions ----------------------------------------------------------------------------

TEN_WORDS = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize("returns_marks", [True, False])
async def test_an_interruption_tells_what_was_heard(tmp_path: Path, returns_marks: bool) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, returns_marks=returns_marks) as phone:
        await answered(phone)
        item = model.current.speak(TEN_WORDS, 2000)
        await phone.settle(0.8)
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.1)
        assert phone.socket.clears == 1
        ((heard),) = model.current.interrupts
        assert heard == {item: pytest.approx(800, abs=30)}
        assert phone.said == [("bot", "one two three four")]
        assert not phone.record.transcript[0].complete
        (row,) = await phone.rows()
        assert row.barge_in_at is not None
        assert row.playback_done is None
        model.current.write(item, 500)
        await phone.settle(1)
        assert len(phone.socket.audio_sent) < 160 * 60


async def test_audio_on_its_way_behind_an_interruption_is_dropped(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        item = model.current.speak(TEN_WORDS, 2000)
        await phone.settle(0.8)
        talk(phone).hush()
        model.current.write(item, 500)
        await phone.settle(2)
        assert len(phone.socket.heard) == pytest.approx(160 * 40, abs=160 * 2)
        assert phone.said == [("bot", "one two three four")]


async def test_an_item_that_pauses_is_interrupted(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.write("x", 500)
        model.current.tell(Transcript("assistant", "x", "I begin", final=False))
        await phone.settle(1)
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.1)
        assert model.current.interrupts == [{"x": pytest.approx(500, abs=20)}]
        model.current.write("x", 500)
        await phone.settle(1)
        assert phone.said == [("bot", "I begin")]
        assert len(phone.socket.heard) == pytest.approx(160 * 25, abs=160)


async def test_the_words_of_an_interrupted_item_may_come_behind_it(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.write("x", 2000)
        await phone.settle(0.8)
        assert phone.record.state is CallState.SPEAKING
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.5)
        model.current.tell(Transcript("assistant", "x", TEN_WORDS, final=True))
        await phone.settle(1)
        assert phone.said == [("bot", "one two three four")]


async def test_words_that_were_cut_off_stand_before_those_that_did_it(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.write("item-1", 2000)
        # A model need not complete the text of what it does not say.
        model.current.tell(Transcript("assistant", "item-1", TEN_WORDS, final=False))
        await phone.settle(0.8)
        model.current.tell(SpeechStarted(0), Interrupted())
        await phone.settle(0.3)
        model.current.hears("Wait.")
        await phone.settle(3)
        assert phone.said == [("bot", "one two three four"), ("user", "Wait.")]


@pytest.mark.parametrize("hangs_up", [True, False])
async def test_the_record_takes_the_sentence_that_the_end_of_the_call_cuts_short(
    tmp_path: Path, hangs_up: bool
) -> None:
    async with open_realtime(tmp_path, model := ScriptedRealtime()) as phone:
        await answered(phone)
        call_id = phone.record.call_id
        model.current.speak(TEN_WORDS, 2000)
        await phone.settle(1)
        if hangs_up:
            await phone.hang_up()
        else:
            await phone.operations.end(call_id)
        await phone.settle(1)
        stored = await phone.store.load(call_id)
        assert stored is not None
        (entry,) = stored.transcript
        assert entry.text in ("one two three four", "one two three four five")
        assert not entry.complete
        assert stored.utterance is None
        assert len(await phone.rows()) == 1


async def test_items_that_wait_were_not_heard(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.speak(TEN_WORDS, 1000)
        model.current.speak("Never heard.", 1000)
        await phone.settle(0.5)
        model.current.tell(Interrupted())
        await phone.settle(3)
        (heard,) = model.current.interrupts
        assert heard["item-2"] == 0
        assert phone.said == [("bot", "one two three four five")]


async def test_nothing_is_interrupted_while_nothing_is_said(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(SpeechStarted(0), Interrupted())
        await phone.settle(0.5)
        assert phone.socket.clears == 0
        assert model.current.interrupts == []


async def test_the_model_decides_where_it_says_so(tmp_path: Path) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(interrupts=Interrupter.MODEL))
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.speak(TEN_WORDS, 2000)
        await phone.settle(0.5)
        model.current.tell(SpeechStarted(0))
        await phone.socket.speak(LOUD * 20)
        assert phone.socket.clears == 0
        model.current.tell(Interrupted())
        await phone.settle(1)
        (row,) = await phone.rows()
        assert row.barge_in_stop_ms == pytest.approx(400, abs=20)


async def test_with_barge_in_off_the_local_gate_interrupts_nothing(tmp_path: Path) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(interrupts=Interrupter.CLIENT))
    async with open_realtime(tmp_path, model, bargeIn={"enabled": False}) as phone:
        await answered(phone)
        model.current.speak(TEN_WORDS, 1000)
        await phone.socket.speak(LOUD * 20)
        assert phone.socket.clears == 0


async def test_without_barge_in_speech_that_the_model_tells_of_stops_nothing(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, bargeIn={"enabled": False}) as phone:
        await answered(phone)
        model.current.speak(TEN_WORDS, 2000)
        await phone.settle(0.5)
        model.current.tell(SpeechStarted(0))
        await phone.settle(2)
        assert phone.socket.clears == 0
        assert phone.said == [("bot", TEN_WORDS)]


@pytest.mark.parametrize("may", [True, False])
async def test_a_vendor_that_hears_the_caller_knows_whether_to_break_off(
    tmp_path: Path, may: bool
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, bargeIn={"enabled": may}) as phone:
        await answered(phone)
        session = model.current
        session.tell(ResponseStarted("r"), Transcript("assistant", "a", TEN_WORDS, final=True))
        session.write("a", 1000)
        await phone.settle(0.5)
        session.tell(SpeechStarted(0))
        if session.options.interruptible:
            session.tell(ResponseDone("r", "cancelled", items=("a",)))
        else:
            session.write("a", 1000)
            session.tell(ResponseDone("r", "completed", items=("a",)))
        await phone.settle(3)
        assert phone.said == [("bot", "one two three four five" if may else TEN_WORDS)]
        assert len(phone.socket.heard) == (500 if may else 2000) * 8


async def test_the_local_gate_interrupts_for_a_model_that_does_not(tmp_path: Path) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(interrupts=Interrupter.CLIENT))
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.speak(TEN_WORDS, 4000)
        await phone.socket.speak(QUIET * 20)
        await phone.socket.speak(LOUD)
        await phone.socket.speak(QUIET * 5)
        assert phone.socket.clears == 0
        await phone.socket.speak(LOUD * 2)
        assert phone.socket.clears == 1
        assert len(model.current.interrupts) == 1
        await phone.settle(0.5)
        model.current.speak("Yes?", 500)
        await phone.settle(1)
        cut_off, answer = await phone.rows()
        assert cut_off.barge_in_stop_ms == 40
        assert cut_off.barge_in_at == (answer.speech_started or 0) + 40


async def test_speech_interrupts_what_the_model_begins_into_it_once(tmp_path: Path) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(interrupts=Interrupter.CLIENT))
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        # Who has just fallen silent is answered.
        await phone.socket.speak(LOUD * 20 + QUIET * 5)
        model.current.speak(HELLO, 400)
        await phone.socket.speak(QUIET * 50 + LOUD * 20)
        assert phone.socket.clears == 0
        # Who goes on is not talked over.
        model.current.speak(TEN_WORDS, 2000)
        await phone.settle(0.1)
        await phone.socket.speak(LOUD * 3)
        assert phone.socket.clears == 1
        assert len(model.current.interrupts) == 1
        await phone.settle(1)
        # What never ends is no speech.
        model.current.speak("I hear a noise.", 2000)
        await phone.socket.speak(LOUD * 200)
        assert phone.socket.clears == 1
        assert phone.said[-1] == ("bot", "I hear a noise.")
        row = (await phone.rows())[-1]
        assert row.speech_started is not None


async def test_the_local_gate_hears_another_format_too(tmp_path: Path) -> None:
    from voicecall.audio import PCM16_16K

    model = ScriptedRealtime(RealtimeCapabilities(interrupts=Interrupter.CLIENT))
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        phone.audio_format = PCM16_16K
        phone.socket.drop()
        await phone.settle(1)
        model.current.speak(TEN_WORDS, 4000)
        await phone.settle(0.5)
        await phone.socket.speak(bytes(6400))
        assert phone.socket.clears == 0
        await phone.socket.speak(b"\x00\x20" * 3200)
        assert phone.socket.clears == 1


# --- sockets ----------------------------------------------------------------------------------


async def test_the_session_survives_its_socket(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        audio = bytes(n % 250 for n in range(8 * 2000))
        model.current.options.sink.write("a", audio)
        model.current.tell(Transcript("assistant", "a", "A story.", final=True))
        model.current.tell(ResponseDone("r", "completed"))
        await phone.settle(0.7)
        phone.socket.drop()
        await phone.settle(5)
        assert len(phone.sockets) == 2
        assert len(model.sessions) == 1
        # What the lost socket had not confirmed is sent again, nothing else.
        again = phone.sockets[1].audio_sent
        assert audio.endswith(again)
        assert 1200 <= len(again) / 8 <= 1600
        assert phone.said == [("bot", "A story.")]
        await phone.socket.speak(LOUD * 5)
        assert bytes(model.current.audio).endswith(LOUD * 5)


@pytest.mark.parametrize("opens_s", [0.0, 1.0])
async def test_a_socket_with_another_format_has_a_session_of_its_own(
    tmp_path: Path, opens_s: float
) -> None:
    from voicecall.audio import MULAW_8K, PCM16_16K

    model = ScriptedRealtime(RealtimeCapabilities(formats=(MULAW_8K, PCM16_16K)))
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.hears("Tell me a story.")
        await phone.settle(0.1)
        model.current.speak(TEN_WORDS, 5000)
        await phone.settle(2)
        first, model.open_delay_s = model.current, opens_s
        phone.audio_format = PCM16_16K
        phone.socket.drop()
        await phone.settle(0.2)
        assert len(phone.sockets) == 2
        # What the old session was saying would be noise now, and so would be what waits for it.
        before = bytes(first.audio)
        first.write("item-1", 500)
        wide = bytes(range(256)) * 25
        await phone.socket.speak(wide)
        await phone.settle(1.3)
        assert bytes(first.audio) == before
        (session,) = model.sessions[1:]
        assert session.options.input_format == session.options.output_format == PCM16_16K
        assert bytes(session.audio) == wide
        assert session.options.history == [
            ("user", "Tell me a story."),
            ("assistant", "one two three four"),
        ]
        # It is asked to go on.
        ((kind, _),) = session.asked
        assert kind == "greet"
        await phone.settle(1.5)
        assert phone.socket.audio_sent == b"\x01" * PCM16_16K.size(1000)
        assert phone.said[-1] == ("bot", HELLO)
        assert phone.record.live


async def test_audio_in_another_format_never_reaches_the_old_session(tmp_path: Path) -> None:
    from voicecall.audio import MULAW_8K, PCM16_16K

    model = ScriptedRealtime(RealtimeCapabilities(formats=(MULAW_8K, PCM16_16K)))
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        before = bytes(model.current.audio)
        phone.audio_format = PCM16_16K
        phone.opens_streams = False
        phone.socket.drop()
        await phone.settle(0.3)
        wanted = phone.carrier.performed_of(tel.AttachStream)[-1]
        assert isinstance(wanted, tel.AttachStream)
        # Its first audio may come in one piece with the begin of the stream.
        socket = await phone.attach(wanted.stream.token)
        wide = bytes(range(256)) * 25
        await socket.speak(wide)
        await phone.settle(1)
        first, second = model.sessions
        assert bytes(first.audio) == before
        assert bytes(second.audio) == wide


async def test_another_format_between_two_sessions_is_that_of_the_next(tmp_path: Path) -> None:
    from voicecall.audio import MULAW_8K, PCM16_16K

    model = ScriptedRealtime(RealtimeCapabilities(formats=(MULAW_8K, PCM16_16K)))
    model.open_delay_s = 9.5
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        await phone.socket.speak(LOUD * 400)
        phone.audio_format = PCM16_16K
        phone.socket.drop()
        await phone.settle(0.3)
        audio = bytes(PCM16_16K.size(9_000))
        await phone.socket.speak(audio)
        await phone.settle(5)
        (session,) = model.sessions
        assert session.options.input_format == PCM16_16K
        assert bytes(session.audio) == audio


async def test_a_socket_that_stays_away_ends_the_call_after_the_grace(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    mute = replace(STREAMING, native_speech=False, native_listening=False)
    async with open_realtime(tmp_path, model, capabilities=mute) as phone:
        await greeted(phone)
        phone.opens_streams = False
        phone.socket.drop()
        await phone.settle(1.9)
        assert phone.engine.lanes
        await phone.settle(0.3)
        assert phone.record.end_detail is EndDetail.STREAM_LOST
        assert phone.record.end_reason is EndReason.HANGUP_BOT


async def test_minutes_of_speech_are_heard_to_their_end(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        before = len(phone.socket.heard)
        # The model has all of it at once.
        model.current.speak("It was a dark and stormy night.", 180_000)
        for _ in range(185):
            await phone.socket.speak(QUIET)
            await phone.settle(1)
        assert len(phone.socket.heard) - before == 180 * 8000
        assert phone.said[-1] == ("bot", "It was a dark and stormy night.")


async def test_a_line_without_audio_ends_the_call(tmp_path: Path) -> None:
    async with open_realtime(tmp_path, ScriptedRealtime()) as phone:
        await answered(phone)
        await phone.settle(20)
        await phone.socket.speak(QUIET)
        await phone.settle(31.8)
        assert phone.engine.lanes
        await phone.settle(0.3)
        assert phone.record.end_reason is EndReason.TIMEOUT


# --- sessions ---------------------------------------------------------------------------------


async def test_a_lost_session_is_opened_again_with_the_history(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.hears("I am Ann.")
        await phone.settle(0.1)
        model.current.tell(SessionLost("network", fatal=False))
        await phone.settle(0.1)
        assert len(model.sessions) == 1
        model.current.tell(SessionLost("gone", fatal=True))
        await phone.settle(0.1)
        await phone.socket.speak(LOUD * 3)
        await phone.settle(0.5)
        assert len(model.sessions) == 2
        assert model.current.options.history == [("assistant", HELLO), ("user", "I am Ann.")]
        assert bytes(model.current.audio) == LOUD * 3


async def test_items_of_another_session_may_have_the_same_names(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.speak(TEN_WORDS, 2000)
        await phone.settle(0.8)
        model.current.tell(Interrupted())
        await phone.settle(0.1)
        # The session is lost in the middle of an answer.
        model.current.tell(Transcript("assistant", "item-2", "I begin", final=False))
        model.current.tell(Transcript("assistant", "item-3", "Lost words, ", final=False))
        model.current.write("item-2", 500)
        await phone.settle(0.1)
        model.current.end()
        await phone.settle(0.3)
        # Another one, while that is still heard.
        assert len(model.sessions) == 2
        model.current.write("item-2", 500, 2)
        model.current.tell(Transcript("assistant", "item-2", "And I go on.", final=True))
        await phone.settle(2)
        model.current.write("item-3", 500)
        model.current.tell(Transcript("assistant", "item-3", "Then I end.", final=False))
        model.current.tell(ResponseDone("r", "completed"))
        await phone.settle(3)
        # The first one had the name of the one that was cut off in the lost session.
        assert phone.said == [
            ("bot", "one two three four"),
            ("bot", "I begin"),
            ("bot", HELLO),
            ("bot", "And I go on."),
            ("bot", "Then I end."),
        ]


async def test_a_model_without_ids_of_responses_is_heard(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        for item in ("a", "b"):
            model.current.tell(ResponseStarted(""))
            await phone.settle(0.1)
            model.current.write(item, 400)
            model.current.tell(
                Transcript("assistant", item, f"This is {item}.", final=True),
                ResponseDone("", "completed"),
            )
            await phone.settle(1)
        assert phone.said == [("bot", "This is a."), ("bot", "This is b.")]


async def test_an_item_that_is_cut_behind_its_session_silences_none_of_the_next(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.speak(TEN_WORDS, 2000)
        await phone.settle(0.1)
        model.current.end()
        await phone.settle(0.7)
        model.current.tell(Interrupted())
        await phone.settle(0.1)
        # It is nothing that this session said.
        assert model.current.interrupts == [{}]
        assert model.current.speak("Yes?", 500) == "item-1"
        await phone.settle(2)
        assert phone.said == [("bot", "one two three four"), ("bot", "Yes?")]


async def test_what_waits_for_a_session_is_kept_for_ten_seconds(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    model.open_delay_s = 9.0
    model.open_errors.append(ProviderUnavailable("down", provider="model"))
    async with open_realtime(tmp_path, model, realtime={"inactivityMs": 0}) as phone:
        await answered(phone)
        seconds = [bytes([number]) * 8000 for number in range(17)]
        for second in seconds:
            await phone.socket.speak(second)
        await phone.settle(5)
        assert bytes(model.current.audio) == b"".join(seconds[7:])
        # What a session took counts no more; and one that lasted may be lost again.
        for _ in range(2):
            await phone.settle(40)
            model.current.end()
            await phone.settle(0.1)
            for second in seconds[:6]:
                await phone.socket.speak(second)
            await phone.settle(5)
            assert bytes(model.current.audio) == b"".join(seconds[:6])


async def test_a_second_loss_ends_the_call(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.open_errors.append(ProviderUnavailable("down", provider="model"))
        model.current.end()
        await phone.settle(10)
        assert phone.record.end_reason is EndReason.ERROR
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_a_loss_long_ago_does_not_count_where_a_session_was_renewed_since(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime={"inactivityMs": 0}) as phone:
        await answered(phone)
        model.current.end()
        await phone.settle(120)
        model.current.tell(SessionExpiring(2_000))
        await phone.settle(5)
        assert len(model.sessions) == 3
        model.current.end()
        await phone.settle(5)
        assert len(model.sessions) == 4
        assert phone.record.live


async def test_an_expiring_session_is_renewed_between_utterances(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.speak("A long sentence.", 3000)
        await phone.settle(0.2)
        model.current.tell(SessionExpiring(60_000))
        await phone.settle(2)
        assert len(model.sessions) == 1
        await phone.settle(2)
        assert len(model.sessions) == 2
        assert phone.said[-1] == ("bot", "A long sentence.")


async def test_a_session_that_hears_the_caller_is_not_left(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.speak("A long sentence.", 5000)
        await phone.settle(0.2)
        model.current.tell(SessionExpiring(60_000))
        await phone.settle(1)
        # The caller breaks in, speaks, and waits for the answer.
        model.current.tell(SpeechStarted(1000))
        await phone.settle(2)
        model.current.tell(SpeechStopped(3000))
        await phone.settle(0.5)
        model.current.hears("Tell me about tomorrow.")
        await phone.settle(0.5)
        assert len(model.sessions) == 1
        model.current.speak("Tomorrow it rains.", 2000)
        await phone.settle(1)
        assert len(model.sessions) == 1
        await phone.settle(2)
        assert len(model.sessions) == 2
        assert model.current.options.history[-1] == ("assistant", "Tomorrow it rains.")


async def test_a_caller_who_gets_no_answer_does_not_keep_a_session_for_ever(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(SpeechStarted(1000), SessionExpiring(5_000))
        await phone.settle(2.5)
        assert len(model.sessions) == 1
        await phone.settle(1)
        assert len(model.sessions) == 2


async def test_an_expiring_session_is_left_in_time(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.speak("A long sentence.", 30_000)
        await phone.settle(0.2)
        model.current.tell(SessionExpiring(5_000))
        await phone.settle(3.5)
        assert len(model.sessions) == 2


class _Hasty(ScriptedRealtime):
    """Its sessions speak as soon as they are open."""

    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        async with super().session(options) as session:
            session.write("x", 300)
            yield session


async def test_a_model_may_speak_as_soon_as_its_session_is_open(tmp_path: Path) -> None:
    model = _Hasty()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.write("x", 300)
        model.current.tell(Transcript("assistant", "x", "Hello?", final=True))
        model.current.tell(ResponseDone("r", "completed", items=("x",)))
        await phone.settle(2)
        assert phone.said == [("bot", "Hello?")]
        assert len(phone.socket.audio_sent) == 600 * 8
        assert len(await phone.rows()) == 1


class _Expiring(ScriptedRealtime):
    """Its sessions expire as soon as they are open."""

    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        async with super().session(options) as session:
            session.tell(SessionExpiring(0))
            yield session


async def test_sessions_that_expire_at_once_are_opened_ever_more_rarely(tmp_path: Path) -> None:
    model = _Expiring()
    async with open_realtime(tmp_path, model, realtime={"inactivityMs": 0}) as phone:
        await answered(phone)
        await phone.settle(1)
        assert len(model.sessions) == 3
        await phone.settle(60)
        assert 10 <= len(model.sessions) <= 14
        assert phone.record.live


async def test_a_model_that_resumes_renews_itself(tmp_path: Path) -> None:
    model = ScriptedRealtime(RealtimeCapabilities(resumption=True))
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(SessionExpiring(1_000))
        await phone.settle(5)
        assert len(model.sessions) == 1


async def test_a_reset_drops_what_was_being_said(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        item = model.current.speak(TEN_WORDS, 5000)
        await phone.settle(1)
        model.current.tell(SessionReset())
        await phone.settle(0.1)
        assert phone.socket.clears == 1
        # The new session may use the same names.
        model.current.write(item, 200)
        await phone.settle(0.1)
        assert phone.socket.audio_sent.endswith(b"\x01" * 1600)


async def test_failed_responses_are_apologised_for_then_the_call_ends(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(ResponseDone("r1", "failed", "overloaded"))
        await phone.settle(0.1)
        assert model.current.asked[-1] == ("say", phone.config.phrases.not_understood)
        await phone.settle(2)
        model.current.tell(ResponseDone("r2", "failed", "overloaded"))
        model.current.tell(ResponseDone("r3", "failed", "overloaded"))
        await phone.settle(3)
        assert phone.record.end_detail is EndDetail.AGENT_FAILED
        assert phone.said[-1] == ("bot", phone.config.phrases.failed)


@pytest.mark.parametrize("says", [True, False])
async def test_a_response_that_is_cut_short_before_its_first_word_is_apologised_for(
    tmp_path: Path, says: bool
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(ResponseStarted("r1"))
        await phone.settle(0.1)
        if says:
            model.current.write("x", 500)
            model.current.tell(Transcript("assistant", "x", "I think that", final=True))
        model.current.tell(ResponseDone("r1", "incomplete"))
        await phone.settle(2)
        words = "I think that" if says else phone.config.phrases.not_understood
        assert phone.said[1:] == [("bot", words)]


async def test_a_response_that_fails_is_not_the_one_that_is_still_being_heard(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.speak("At six in the evening.", 3000)
        await phone.settle(1)
        model.current.tell(ResponseDone("next", "failed", "overloaded"))
        await phone.settle(4)
        assert model.current.asked[-1] == ("say", phone.config.phrases.not_understood)
        assert phone.said[1] == ("bot", "At six in the evening.")
        assert phone.record.transcript[1].complete
        assert [row.failed for row in await phone.rows()] == [None] * 3


async def test_an_error_that_is_no_text_costs_no_call(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        error: Any = {"code": "overloaded"}
        model.current.write("item", 500)
        model.current.tell(ResponseDone("r1", "failed", error))
        await phone.settle(3)
        assert phone.record.live
        failed = [row.failed for row in await phone.rows() if row.failed]
        assert failed == ["{'code': 'overloaded'}"]
    assert "a response of the voice model failed: {'code': 'overloaded'}" in caplog.text


@pytest.mark.parametrize("answers", [True, False])
async def test_an_apology_is_no_answer(tmp_path: Path, answers: bool) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        for number in range(2):
            model.current.hears("When do you close?")
            model.current.tell(ResponseDone(f"r{number}", "failed", "overloaded"))
            await phone.settle(3)
            if answers:
                model.current.hears("When do you close?")
                model.current.speak("At six in the evening.", 1000)
                await phone.settle(3)
        assert phone.record.live == answers
        phrases = phone.config.phrases
        last = phrases.not_understood if answers else phrases.failed
        assert model.current.asked[-2:] == [("say", phrases.not_understood), ("say", last)]


async def test_an_apology_that_goes_with_its_session_hides_no_answer(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.idle = True
        model.current.tell(ResponseDone("r1", "failed", "overloaded"))
        await phone.settle(0.1)
        model.idle = False
        model.current.end()
        await phone.settle(1)
        model.current.speak("At six in the evening.", 1000)
        await phone.settle(2)
        model.current.tell(ResponseDone("r2", "failed", "overloaded"))
        await phone.settle(3)
        assert phone.record.live
        assert phone.said[-1] == ("bot", phone.config.phrases.not_understood)


# --- requests from outside --------------------------------------------------------------------


async def test_say_returns_when_it_was_played(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        begin = phone.seam.monotonic()
        await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
        assert phone.seam.monotonic() - begin == pytest.approx(1, abs=0.1)
        assert phone.said[-1] == ("bot", "Your taxi is here.")


async def test_say_returns_behind_an_answer_that_was_being_made(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.tell(ResponseStarted("own"))
        await phone.settle(0.1)
        model.idle = True

        async def answer() -> None:
            await phone.settle(0.1)
            model.current.write("own item", 1000)
            model.current.tell(Transcript("assistant", "own item", "At six.", final=True))
            model.current.tell(ResponseDone("own", "completed", items=("own item",)))
            await phone.settle(0.1)
            model.current.speak("Your taxi is here.", 1000)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
        assert phone.said == [("bot", "At six."), ("bot", "Your taxi is here.")]


async def test_say_waits_behind_a_response_that_only_calls_a_tool(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.idle = True

        async def call_a_tool() -> None:
            await phone.settle(0.1)
            model.current.tell(ResponseStarted("r"), ResponseDone("r", "completed"))
            await phone.settle(0.1)
            model.current.speak("Your taxi is here.", 1000)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call_a_tool)
            await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
        assert phone.said == [("bot", "Your taxi is here.")]


@pytest.mark.parametrize("comes", [True, False])
async def test_say_waits_for_a_long_answer_that_is_made_in_real_time(
    tmp_path: Path, comes: bool
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime={"inactivityMs": 0}) as phone:
        await answered(phone)
        patience_s = phone.config.tts.timeout_ms / 1000
        model.current.tell(ResponseStarted("own"))
        await phone.settle(0.1)
        model.idle = True

        async def answer() -> None:
            for _ in range(round(patience_s * 25)):
                model.current.write("own item", 100)
                await phone.settle(0.1)
            model.current.tell(Transcript("assistant", "own item", "A story.", final=True))
            model.current.tell(ResponseDone("own", "completed", items=("own item",)))
            await phone.settle(0.1)
            if comes:
                model.current.speak("Your taxi is here.", 1000)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            with anyio.fail_after(patience_s * 5):
                if comes:
                    await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
                else:
                    with pytest.raises(ProviderUnavailable, match="said nothing"):
                        await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
        assert phone.said[0] == ("bot", "A story.")
        assert phone.said[1:] == ([("bot", "Your taxi is here.")] if comes else [])


async def test_say_returns_where_the_caller_speaks_before_it_begins(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.idle = True

        async def break_in() -> None:
            await phone.settle(0.5)
            model.current.tell(
                ResponseStarted("r"), SpeechStarted(0), ResponseDone("r", "cancelled")
            )

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(break_in)
            with anyio.fail_after(1):
                await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
        assert ("bot", "Your taxi is here.") not in phone.said


async def test_say_reports_a_model_that_says_nothing(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.silent = True
        with pytest.raises(ProviderUnavailable):
            await phone.operations.speak(phone.record.call_id, "Hello?")


async def test_one_request_after_the_other_is_said(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        call_id = phone.record.call_id
        async with anyio.create_task_group() as tasks:
            for text in ("First of all.", "After that."):
                tasks.start_soon(phone.operations.speak, call_id, text)
            await phone.settle(0.9)
            assert model.current.asked == [("say", "First of all.")]
        assert phone.said == [("bot", "First of all."), ("bot", "After that.")]


async def test_requests_that_wait_are_not_said_into_an_interruption(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        call_id = phone.record.call_id
        async with anyio.create_task_group() as tasks:
            for text in ("First of all.", "After that.", "And at last."):
                tasks.start_soon(phone.operations.speak, call_id, text)
            await phone.settle(0.5)
            model.current.tell(Interrupted())
        await phone.settle(2)
        assert model.current.asked == [("say", "First of all.")]


async def test_say_reports_at_once_that_nothing_is_said_behind_other_words(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.speak(TEN_WORDS, 6000)
        await phone.settle(1)
        model.silent = True
        with anyio.fail_after(1), pytest.raises(ProviderUnavailable, match="said nothing"):
            await phone.operations.speak(phone.record.call_id, "Hello?")


@pytest.mark.parametrize("event", [SessionLost("gone", fatal=True), SessionReset()])
async def test_what_the_next_session_says_is_not_what_the_lost_one_was_asked_to_say(
    tmp_path: Path, event: SessionLost | SessionReset
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.idle = True

        async def lose() -> None:
            await phone.settle(0.5)
            model.idle = False
            # Whoever has no answer yet gets it from the next session.
            model.current.hears("When do you close?")
            await phone.settle(0.1)
            model.current.tell(event)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose)
            with anyio.fail_after(1), pytest.raises(ProviderUnavailable, match="said nothing"):
                await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
        await phone.settle(3)
        assert phone.said[-2:] == [("user", "When do you close?"), ("bot", HELLO)]


async def test_an_expiring_session_says_first_what_it_was_asked_to(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.idle = True

        async def expire() -> None:
            await phone.settle(0.2)
            model.current.tell(SessionExpiring(60_000))
            await phone.settle(1)
            assert len(model.sessions) == 1
            model.current.speak("Your taxi is here.", 1000)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(expire)
            await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
        await phone.settle(5)
        assert phone.said[-1] == ("bot", "Your taxi is here.")
        assert len(model.sessions) == 2


async def test_say_reports_words_that_break_off_and_the_next_are_said(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        call_id = phone.record.call_id
        model.refusals.append(ProviderUnavailable("busy", provider="model"))
        with pytest.raises(ProviderUnavailable, match="busy"):
            await phone.operations.speak(call_id, "Your taxi is here.")
        await phone.operations.speak(call_id, "Your taxi is waiting.")
        model.stalls = True

        async def break_off() -> None:
            await phone.settle(0.5)
            model.current.tell(ResponseDone("r", "failed", "overloaded"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(break_off)
            with pytest.raises(ProviderUnavailable, match="overloaded"):
                await phone.operations.speak(call_id, "Your taxi has left.")


async def test_words_that_wait_behind_others_end_with_the_call(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.current.speak(TEN_WORDS, 5000)

        async def say() -> None:
            with anyio.fail_after(10), pytest.raises(CallNotReady):
                await talk(phone).say("Later.")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(say)
            await phone.settle(1)
            await phone.hang_up()


async def test_ask_returns_the_callers_next_words(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        async with asked(phone, "Which day?") as answers:
            await phone.settle(2)
            with pytest.raises(CallNotReady, match="Already waiting"):
                await phone.operations.ask(phone.record.call_id, "And when?")
            model.current.hears("Monday.")
        assert answers == ["Monday."]
        assert phone.said[-2:] == [("bot", "Which day?"), ("user", "Monday.")]


@pytest.mark.parametrize("answers", [False, True])
async def test_the_rest_of_a_sentence_is_no_answer(tmp_path: Path, answers: bool) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.3)
        async with asked(phone, "Which day?") as got:
            await phone.settle(1)
            assert model.current.asked[1:] == []
            model.current.tell(SpeechStopped(1300))
            if answers:
                # A model need not wait for the text of what it hears.
                model.current.speak("One moment.", 500)
            await phone.settle(1)
            assert model.current.asked[1:] == []
            model.current.hears("I would like to book a table.")
            await phone.settle(2)
            assert model.current.asked[1:] == [("say", "Which day?")]
            model.current.hears("Monday.")
        assert got == ["Monday."]


@pytest.mark.parametrize("begins", [True, False])
async def test_words_that_interrupt_what_stands_before_a_question_are_no_answer(
    tmp_path: Path, begins: bool
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.speak("A long story.", 10_000)
        await phone.settle(0.5)
        model.idle = not begins
        async with asked(phone, "Which day?") as got:
            await phone.settle(0.5)
            assert model.current.asked[1:] == [("say", "Which day?")]
            model.idle = False
            model.current.tell(SpeechStarted(0), ResponseDone("next", "cancelled"))
            await phone.settle(0.5)
            model.current.tell(SpeechStopped(1000))
            await phone.settle(0.2)
            model.current.hears("Wait, I have to go soon.")
            await phone.settle(0.3)
            assert model.current.asked[1:] == [("say", "Which day?")] * 2
            await phone.settle(0.5)
            model.current.hears("Monday.")
        assert got == ["Monday."]


async def test_what_is_said_before_a_question_is_spoken_is_no_answer(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        model.answer_ms = 3000
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(phone.operations.speak, phone.record.call_id, "First of all.")
            await phone.settle(0.1)
            async with asked(phone, "Which day?") as got:
                await phone.settle(1)
                model.current.hears("Go on.")
                await phone.settle(6)
                assert model.current.asked[1:] == [("say", "Which day?")]
                assert got == []
                model.current.hears("Monday.")
        assert got == ["Monday."]


async def test_words_between_a_request_and_its_question_are_no_answer(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.idle = True
        async with asked(phone, "Which day?") as got:
            await phone.settle(0.5)
            model.current.hears("Hello?")
            await phone.settle(0.5)
            model.current.speak("Which day?", 500)
            await phone.settle(1)
            assert got == []
            model.current.hears("Monday.")
        assert got == ["Monday."]


async def test_a_question_into_which_somebody_always_speaks_is_asked_three_times(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.idle = True
        async with asked(phone, "Which day?") as got:
            for _ in range(3):
                await phone.settle(0.5)
                model.current.tell(ResponseDone("next", "cancelled"))
            await phone.settle(0.5)
            assert model.current.asked[1:] == [("say", "Which day?")] * 3
            model.current.hears("Monday.")
        assert got == ["Monday."]


@pytest.mark.parametrize("comes", [True, False])
async def test_words_wait_a_moment_for_another_session(tmp_path: Path, comes: bool) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.open_delay_s = 2.0 if comes else 9.0
        model.current.end()
        await phone.settle(0.1)
        with anyio.fail_after(5):
            if comes:
                await phone.operations.speak(phone.record.call_id, "Your taxi is here.")
                assert phone.said[-1] == ("bot", "Your taxi is here.")
            else:
                with pytest.raises(CallNotReady, match="No active voice model"):
                    await phone.operations.speak(phone.record.call_id, "Your taxi is here.")


async def test_a_question_waits_a_moment_for_another_session(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.open_delay_s = 2.0
        model.current.end()
        await phone.settle(0.1)
        async with asked(phone, "Which day?") as got:
            await phone.settle(4)
            assert phone.said[-1] == ("bot", "Which day?")
            model.current.hears("Monday.")
        assert got == ["Monday."]


async def test_a_question_behind_an_answer_is_asked_at_once(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.5)
        model.current.tell(SpeechStopped(500))
        model.current.hears("I would like to book a table.")
        await phone.settle(0.1)
        model.current.speak("One moment.", 500)
        await phone.settle(1)
        async with asked(phone, "Which day?") as got:
            await phone.settle(0.1)
            assert model.current.asked[1:] == [("say", "Which day?")]
            await phone.settle(1)
            model.current.hears("Monday.")
        assert got == ["Monday."]


async def test_a_sound_long_ago_holds_up_no_words(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, realtime={"inactivityMs": 0}) as phone:
        await greeted(phone)
        model.current.tell(SpeechStarted(0))
        await phone.settle(30)
        with anyio.fail_after(1.5):
            await phone.operations.speak(phone.record.call_id, "Your taxi is here.")


@pytest.mark.parametrize(("stops", "wait_s"), [(True, 1.0), (False, 4.0)])
async def test_words_wait_while_the_caller_speaks_though_not_for_ever(
    tmp_path: Path, stops: bool, wait_s: float
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        model.current.tell(SpeechStarted(0))
        await phone.settle(0.1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(phone.operations.speak, phone.record.call_id, "Your taxi is here.")
            await phone.settle(wait_s - 0.1)
            assert model.current.asked[1:] == []
            if stops:
                model.current.tell(SpeechStopped(1000))
            await phone.settle(0.2)
            assert model.current.asked[1:] == [("say", "Your taxi is here.")]


async def test_ask_ends_with_the_call_or_in_time(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model, transcriptTimeoutMs=5000) as phone:
        await greeted(phone)
        with pytest.raises(CallNotReady, match="Timed out"):
            await phone.operations.ask(phone.record.call_id, "Which day?")

        async def ask() -> None:
            with pytest.raises(CallNotReady, match="Call ended"):
                await phone.operations.ask(phone.record.call_id, "Which day?")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await phone.settle(0.5)
            await phone.hang_up()


async def test_pressed_keys_are_told_to_the_model(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        phone.socket.press("4")
        await phone.settle(0.3)
        phone.socket.press("2")
        await phone.settle(1.5)
        kind, text = model.current.asked[-1]
        assert kind == "greet"
        assert "4 2" in text


async def test_keys_are_played_through_the_line(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        phone.carrier.capabilities = replace(phone.carrier.capabilities, dtmf_out=True)
        await greeted(phone)
        await phone.operations.dtmf(phone.record.call_id, "12#")
        assert phone.socket.digits == ["12#"]


async def test_every_request_begins_with_the_instructions_of_the_session(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        phone.socket.press("1")
        await phone.settle(4)
        model.current.tell(ResponseStarted("r1"), SessionReset())
        await phone.settle(1)
        assert [kind for kind, _ in model.current.asked] == ["greet"] * 3
        for _, request in model.current.asked:
            assert request.startswith(model.current.options.instructions)


async def test_usage_is_summed_up(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        conversation = talk(phone)
        model.current.tell(Usage({"in": 3, "out": 5}), Usage({"in": 4}))
        await phone.settle(0.1)
        assert conversation.usage == {"in": 7, "out": 5}


@pytest.mark.parametrize("details", [{"cached": 1}, None, 0.5])
async def test_what_is_no_number_of_usage_is_left_out(tmp_path: Path, details: Any) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await greeted(phone)
        usage: dict[str, Any] = {"in": 3, "details": details}
        nothing: Any = None
        model.current.tell(Usage(usage), Usage(usage), Usage(nothing))
        await phone.settle(0.1)
        assert talk(phone).usage == {"in": 6}
        assert len(model.sessions) == 1
