"""Streamed dialogues on virtual time: the greeting, turns and interruptions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from voicecall import events as ev
from voicecall import telephony as tel
from voicecall.agent import EndCall
from voicecall.audio import MULAW_8K, AudioFormat
from voicecall.errors import ProviderUnavailable
from voicecall.media import AudioSink
from voicecall.model import CallMode, CallState, EndDetail, EndReason, MediaPath, MessageState
from voicecall.transcription import SpeechStarted
from voicecall.tts import SpeechSession, Utterance
from voicecall_testing.clock import virtual_backend
from voicecall_testing.fakes import ScriptedSpeech
from voicecall_testing.harness import Phone, open_phone

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

GREETING = "Hello! How can I help you today?"
STORY = "It was a dark and stormy night in the old town."


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def greeted(phone: Phone) -> None:
    await phone.call_in()
    await phone.settle(3)


async def telling(phone: Phone, text: str = STORY, *, for_s: float = 1.0) -> None:
    """A call in which the bot has been speaking ``text`` for so long."""
    await greeted(phone)
    phone.agent.then(text)
    phone.hears("Tell me a story.")
    await phone.settle(for_s)
    assert phone.record.state is CallState.SPEAKING


# --- the greeting ----------------------------------------------------------------------------


async def test_a_greeting_a_turn_and_an_answer(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        assert phone.heard == [GREETING]
        phone.hears("Hello?")
        await phone.settle(3)
        assert phone.said == [("bot", GREETING), ("user", "Hello?"), ("bot", "Yes.")]
        assert phone.heard == [GREETING, "Yes."]
        await phone.hang_up()
        assert phone.record.end_reason is EndReason.HANGUP_USER


async def test_the_greeting_waits_until_the_caller_can_be_heard(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.stt.open_delay_s = 2.0
        await phone.call_in()
        await phone.settle(1.9)
        assert phone.heard == []
        assert phone.record.state is CallState.ACTIVE
        await phone.settle(2)
        assert phone.heard == [GREETING]


async def test_words_into_a_protected_greeting_are_context(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.3)
        phone.hears("Hi, it is Anna.")
        await phone.settle(3)
        assert phone.heard == [GREETING]
        assert phone.agent.turns == []
        assert phone.said == [("user", "Hi, it is Anna."), ("bot", GREETING)]


@pytest.mark.parametrize("after_s", [-0.6, -0.1, 0.2, 0.4])
async def test_the_protection_of_a_greeting_begins_with_its_first_audio(
    tmp_path: Path, after_s: float
) -> None:
    async with open_phone(tmp_path) as phone:
        phone.tts.delay_s = 1.0
        await phone.call_in()
        await phone.settle(1.0 + after_s)
        phone.hears("Hello?")
        await phone.settle(4)
        assert phone.said == [("user", "Hello?"), ("bot", GREETING)]
        assert phone.socket.clears == 0


async def test_words_that_begin_before_a_greeting_do_not_interrupt_it(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.tts.errors.append(ProviderUnavailable("no voice", provider="scripted"))
        await phone.call_in()
        # It is tried again after a second.
        await phone.settle(0.9)
        clears = phone.socket.clears
        phone.stt.started()
        await phone.settle(0.4)
        phone.stt.partial("Hello")
        phone.stt.final("Hello?")
        phone.stt.ended()
        await phone.settle(4)
        assert phone.said == [("user", "Hello?"), ("bot", GREETING)]
        assert phone.socket.clears == clears


async def test_a_slow_greeting_may_be_interrupted_as_late_as_a_fast_one(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.tts.delay_s = 1.0
        await phone.call_in()
        await phone.settle(1.9)
        phone.hears("Stop.")
        await phone.settle(4)
        assert phone.socket.clears == 1
        assert phone.agent.asked == ["Stop."]


async def test_words_that_go_on_behind_a_protected_greeting_are_answered(tmp_path: Path) -> None:
    words = "Hello, I need a taxi to the airport."
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.3)
        phone.stt.started()
        phone.stt.partial("Hello")
        await phone.settle(2)
        assert phone.heard == [GREETING]
        phone.stt.final(words)
        phone.stt.ended()
        await phone.settle(2)
        assert phone.said == [("bot", GREETING), ("user", words), ("bot", "Yes.")]


async def test_an_outbound_greeting_is_protected_longer(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.dial(STORY)
        await phone.answer()
        await phone.settle(1.2)
        phone.hears("Who is this?")
        await phone.settle(3)
        assert phone.socket.clears == 0
        assert phone.agent.turns == []
        assert ("bot", STORY) in phone.said


async def test_an_inbound_greeting_may_be_interrupted_later(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.9)
        phone.hears("Stop.")
        await phone.settle(3)
        assert phone.socket.clears == 1
        assert phone.agent.asked == ["Stop."]
        greeting = phone.record.transcript[0]
        assert not greeting.complete
        assert GREETING.startswith(greeting.text)
        assert 0 < len(greeting.text) < len(GREETING)


async def test_the_agent_knows_what_was_said_before_its_first_turn(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.hears("Hello?")
        await phone.settle(3)
        phone.hears("Again.")
        await phone.settle(3)
        assert [turn.opening for turn in phone.agent.turns] == [(GREETING,), ()]
        # The phone was not told what was said on it.
        assert {turn.language for turn in phone.agent.turns} == {""}


async def test_the_agent_knows_words_that_were_kept_as_context(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.call_in()
        await phone.settle(0.3)
        phone.hears("Hi, it is Anna.")
        await phone.settle(3)
        phone.hears("Where are you?")
        await phone.settle(3)
        phone.hears("Again.")
        await phone.settle(3)
        opening = ("(The other party: Hi, it is Anna.)", GREETING)
        assert [turn.opening for turn in phone.agent.turns] == [opening, ()]


async def test_a_first_turn_that_failed_leaves_the_agent_to_be_told(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(ProviderUnavailable("no way there", provider="scripted"))
        phone.hears("Hello?")
        await phone.settle(5)
        phone.hears("It is Anna.")
        await phone.settle(3)
        phone.hears("Again.")
        await phone.settle(3)
        sorry = "Sorry, could you say that again?"
        opening = (GREETING, "(The other party: Hello?)", sorry)
        assert [turn.opening for turn in phone.agent.turns] == [(GREETING,), opening, ()]


@pytest.mark.parametrize(
    ("number", "route_key", "agent", "greeting"),
    [
        ("+1 (555) 000-1111", "+15550001111", "night", "Night desk."),
        ("+1 (555) 000-9999", None, "day", "Day desk."),
    ],
)
async def test_a_number_has_its_own_greeting_agent_and_route(
    tmp_path: Path, number: str, route_key: str | None, agent: str, greeting: str
) -> None:
    config = {
        "agentId": "day",
        "inboundGreeting": "Day desk.",
        "numbers": {number: {"inboundGreeting": "Night desk.", "agentId": "night"}},
    }
    async with open_phone(tmp_path, config=config) as phone:
        await greeted(phone)
        assert phone.heard == [greeting]
        assert phone.record.route_key == route_key
        assert phone.record.agent_id == agent
        assert phone.record.session_key == f"agent:{agent}:voice:15550002222"


async def test_a_notification_is_heard_once_and_ends_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.dial("Your parcel is here.", CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(1.5)
        assert phone.record.live
        await phone.settle(4)
        assert phone.heard == ["Your parcel is here."]
        assert phone.stt.sessions == []
        assert phone.record.end_detail is EndDetail.NOTIFIED


async def test_a_notification_that_was_told_is_not_gone_on_with_after_a_restart(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await phone.dial("Your parcel is here.", CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(1.5)
        assert phone.record.live
    async with open_phone(tmp_path, seed=1) as phone:
        await phone.settle(8)
        assert phone.record.end_detail is EndDetail.NOTIFIED
        assert phone.tts.voices == []


async def test_a_notification_that_a_stop_cuts_off_is_told_after_the_restart(
    tmp_path: Path,
) -> None:
    text = "Your parcel is here. It waits for you at the post office in the Main Street."
    async with open_phone(tmp_path) as phone:
        await phone.dial(text, CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(1.5)
        assert phone.record.message is not None
        assert phone.record.message.state is MessageState.PLAYING
    async with open_phone(tmp_path, seed=1) as phone:
        await phone.settle(15)
        assert phone.heard == [text]
        assert phone.record.end_detail is EndDetail.NOTIFIED
        assert phone.said[-1] == ("bot", text)


# --- turns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5])
async def test_turns_follow_each_other(tmp_path: Path, count: int) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        for number in range(count):
            phone.agent.then(f"Answer {number}.")
            phone.hears(f"Question {number}?")
            await phone.settle(3)
        assert phone.agent.asked == [f"Question {number}?" for number in range(count)]
        assert len(phone.said) == 1 + 2 * count
        assert phone.heard == [GREETING, *(f"Answer {number}." for number in range(count))]
        replies = [row for row in await phone.rows() if row.kind == "reply"]
        assert len(replies) == count
        # Each row has the times of its own utterance.
        assert all(row.speech_ended == pytest.approx(row.at, abs=20) for row in replies)


async def test_the_newest_turn_wins(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(1.0, "An answer to the first.")
        phone.agent.then(1.0, "An answer to the second.")
        phone.hears("First.")
        await phone.settle(0.5)
        phone.hears("Second.")
        await phone.settle(6)
        assert phone.agent.asked == ["First.", "Second."]
        assert phone.heard == [GREETING, "An answer to the second."]
        assert phone.agent.settled == [("First.", "")]
        # The bot did not speak.
        assert [row.barge_in_at for row in await phone.rows()] == [None] * 3


async def test_words_that_come_close_behind_each_other_are_all_put_to_the_agent(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(1.0, "Never heard.")
        phone.hears("A table, please.")
        await phone.settle(0.3)
        for words in ("For two.", "At eight.", "By the window."):
            phone.hears(words)
        await phone.settle(3)
        assert phone.agent.asked[0] == "A table, please."
        assert " ".join(phone.agent.asked[1:]) == "For two. At eight. By the window."
        assert phone.said[-2:] == [("user", "By the window."), ("bot", "Yes.")]


async def test_a_redelivered_utterance_is_answered_once(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await greeted(phone)
        words = phone.make(ev.SpeechHeard, text="Hello?", key="speech-1")
        await phone.tell(words)
        await phone.tell(words)
        await phone.settle(3)
        assert phone.agent.asked == ["Hello?"]
        assert phone.said == [("bot", GREETING), ("user", "Hello?"), ("bot", "Yes.")]


@pytest.mark.parametrize("sound", ["", "Mhm."])
@pytest.mark.parametrize("lasts_s", [0.1, 0.6])
async def test_a_sound_while_the_agent_thinks_costs_no_answer(
    tmp_path: Path, sound: str, lasts_s: float
) -> None:
    answer = "It leaves at noon, from platform four."
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(1.0, answer)
        phone.hears("When?")
        await phone.settle(0.8)
        phone.stt.started()
        await phone.settle(lasts_s)
        phone.stt.final(sound)
        phone.stt.ended()
        await phone.settle(4)
        assert phone.agent.asked == ["When?"]
        assert phone.said[1:] == [("user", "When?"), ("bot", answer)]
        assert phone.socket.clears == 0


async def test_an_answer_is_not_begun_while_the_caller_goes_on(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(1.0, STORY)
        phone.hears("My number is five, five, five.")
        await phone.settle(0.7)
        phone.stt.started()
        phone.stt.partial("zero")
        await phone.settle(3)
        assert phone.heard == [GREETING]
        phone.stt.final("Zero, one, two, three.")
        phone.stt.ended()
        await phone.settle(2)
        assert phone.agent.asked[1:] == ["Zero, one, two, three."]
        assert phone.agent.settled == [("My number is five, five, five.", "")]
        assert phone.said[-2:] == [("user", "Zero, one, two, three."), ("bot", "Yes.")]
        assert phone.heard == [GREETING, "Yes."]


async def test_an_answer_waits_for_no_sound_that_was_there_long_before(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"fillerAfterMs": 0}) as phone:
        await greeted(phone)
        phone.agent.then(5.0, STORY)
        phone.hears("When?")
        await phone.settle(0.5)
        phone.stt.started()
        await phone.settle(5)
        assert phone.heard == [GREETING, STORY]


@pytest.mark.parametrize("words", [False, True])
async def test_an_answer_does_not_wait_for_ever_for_silence(tmp_path: Path, words: bool) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(1.0, STORY)
        phone.hears("When?")
        await phone.settle(0.5)
        phone.stt.started()
        if words:
            phone.stt.partial("tell me")
        await phone.settle(3.5)
        assert phone.heard == [GREETING]
        await phone.settle(1.5)
        assert phone.heard == [GREETING, STORY]


async def test_no_filler_is_spoken_into_what_the_caller_says(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"fillerAfterMs": 500}) as phone:
        filler = phone.config.phrases.filler
        await greeted(phone)
        phone.agent.then(10.0, STORY)
        phone.hears("When?")
        await phone.settle(0.3)
        phone.stt.started()
        await phone.settle(1)
        assert phone.heard == [GREETING]
        # It was a cough.
        phone.stt.ended()
        await phone.settle(1)
        assert phone.heard == [GREETING, filler]


async def test_what_was_not_understood_is_put_to_the_agent(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then("Pardon?")
        phone.hears("")
        await phone.settle(2)
        assert phone.agent.asked == [""]
        assert phone.said == [("bot", GREETING), ("bot", "Pardon?")]


async def test_sentences_are_spoken_as_they_are_made(tmp_path: Path) -> None:
    first = "The first train leaves at noon today."
    second = "The second one leaves in the evening."
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(f"{first} The second ", 5.0, "one leaves in the evening.")
        phone.hears("When?")
        await phone.settle(2.5)
        assert phone.heard == [GREETING, first]
        await phone.settle(6)
        assert phone.heard == [GREETING, first, second]
        assert phone.said[-1] == ("bot", f"{first} {second}")


async def test_a_long_answer_is_heard_to_its_end(tmp_path: Path) -> None:
    sentences = [f"This is sentence number {n} of a story that goes on." for n in range(90)]
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        # The voice has all of it at once.
        phone.agent.then(" ".join(sentences))
        phone.hears("Tell me all of it.")
        await phone.settle(250)
        assert phone.heard == [GREETING, *sentences]
        assert phone.said[-1] == ("bot", " ".join(sentences))


# --- interruptions ---------------------------------------------------------------------------


async def test_sustained_speech_interrupts_and_noise_does_not(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await telling(phone)
        phone.stt.started()
        await phone.settle(0.2)
        phone.stt.ended()
        await phone.settle(0.2)
        assert phone.socket.clears == 0
        phone.stt.started()
        await phone.settle(0.24)
        assert phone.socket.clears == 0
        await phone.settle(0.02)
        assert phone.socket.clears == 1


async def test_speech_that_is_told_late_has_lasted_since_it_began(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await telling(phone)
        await phone.socket.speak(b"\x20" * MULAW_8K.size(200))
        ears = phone.stt.current
        ears.tell(SpeechStarted(utterance=9, at_ms=ears.at_ms - 150))
        await phone.settle(0.08)
        assert phone.socket.clears == 0
        await phone.settle(0.04)
        assert phone.socket.clears == 1


async def test_words_that_began_before_the_answer_and_are_told_behind_it_are_answered(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(1.0, STORY)
        phone.hears("My number is five, five, five.")
        await phone.socket.speak(b"\x20" * MULAW_8K.size(1100))
        assert phone.record.state is CallState.SPEAKING
        ears = phone.stt.current
        ears.tell(SpeechStarted(utterance=9, at_ms=ears.at_ms - 150))
        phone.stt.partial("zero")
        await phone.settle(0.1)
        assert phone.socket.clears == 1
        phone.stt.final("Zero, one.")
        phone.stt.ended()
        await phone.settle(2)
        assert phone.agent.asked[1:] == ["Zero, one."]
        assert phone.said[-2:] == [("user", "Zero, one."), ("bot", "Yes.")]


async def test_short_noises_do_not_add_up(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await telling(phone)
        for _ in range(4):
            phone.stt.started()
            await phone.settle(0.2)
            phone.stt.ended()
        assert phone.socket.clears == 0


@pytest.mark.parametrize("settle_s", [0.0, 1.0])
async def test_a_noise_that_interrupts_is_followed_by_words_of_the_agent(
    tmp_path: Path, settle_s: float
) -> None:
    async with open_phone(tmp_path) as phone:
        await telling(phone)
        phone.agent.settle_takes_s = settle_s
        phone.agent.then("Pardon?")
        phone.stt.started()
        await phone.settle(1)
        phone.stt.ended()
        await phone.settle(2)
        assert phone.agent.asked == ["Tell me a story.", ""]
        assert phone.heard[-2:] == [STORY, "Pardon?"]


async def test_words_interrupt_before_the_sound_has_lasted(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await telling(phone)
        phone.stt.started()
        phone.stt.partial("No")
        await phone.settle()
        assert phone.socket.clears == 1
        phone.stt.final("No, stop.")
        phone.stt.ended()
        await phone.settle(2)
        assert phone.agent.asked == ["Tell me a story.", "No, stop."]
        assert phone.socket.clears == 1
        assert phone.heard[-1] == "Yes."


async def test_an_acknowledgement_does_not_interrupt_and_is_no_turn(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await telling(phone)
        phone.stt.started()
        phone.stt.partial("mhm")
        phone.stt.final("Mhm.")
        phone.stt.ended()
        await phone.settle(4)
        assert phone.socket.clears == 0
        assert phone.said[-2:] == [("user", "Tell me a story."), ("bot", STORY)]
        assert phone.agent.asked == ["Tell me a story."]


async def test_an_interrupted_answer_is_remembered_as_far_as_it_was_heard(
    tmp_path: Path,
) -> None:
    async with open_phone(tmp_path) as phone:
        await telling(phone)
        phone.hears("Stop.")
        await phone.settle(3)
        assert [speaker for speaker, _ in phone.said] == ["bot", "user", "bot", "user", "bot"]
        entry = phone.record.transcript[2]
        assert not entry.complete
        assert STORY.startswith(entry.text)
        # A second of audio at 50 ms a character, to the nearest word.
        assert 12 <= len(entry.text) <= 28
        assert phone.agent.settled == [("Tell me a story.", entry.text)]
        row = next(row for row in await phone.rows() if row.barge_in_at is not None)
        assert row.kind == "reply"
        assert row.barge_in_stop_ms is not None
        assert 0 <= row.barge_in_stop_ms <= 400


class Vague(ScriptedSpeech):
    """A voice that cannot tell how much was heard."""

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        async with super().session(voice, audio_format) as session:

            class Words(Utterance):
                def __init__(self, item_id: str, sink: AudioSink) -> None:
                    self.words = session.utterance(item_id, sink)

                def send(self, text: str) -> None:
                    self.words.send(text)

                def flush(self) -> None:
                    self.words.flush()

                def cancel(self, heard_ms: float) -> str | None:
                    self.words.cancel(heard_ms)
                    return None

                async def done(self) -> None:
                    await self.words.done()

            class Session(SpeechSession):
                def utterance(self, item_id: str, sink: AudioSink) -> Utterance:
                    return Words(item_id, sink)

            yield Session()


@pytest.mark.parametrize("voice", [ScriptedSpeech, Vague])
async def test_a_sentence_that_was_not_spoken_yet_was_not_heard(
    tmp_path: Path, voice: type[ScriptedSpeech]
) -> None:
    first = "The first train leaves at noon today."
    tts = voice()
    async with open_phone(tmp_path, speech=tts) as phone:
        await greeted(phone)
        phone.agent.then(f"{first} The second ", 4.0, "one leaves in the evening. And so on.")
        phone.hears("When?")
        await phone.settle(3)
        tts.delay_s = 2.0
        await phone.settle(2)
        phone.hears("Stop.")
        await phone.settle(1)
        heard = tts.texts_in(bytes(phone.socket.heard))
        assert [text for text, _ in heard] == [GREETING, first]
        assert ("bot", first) in phone.said
        assert phone.agent.settled == [("When?", first)]


async def test_what_was_heard_of_a_sentence_is_a_part_of_that_sentence(tmp_path: Path) -> None:
    first = "The first train leaves at noon today."
    tts = Vague()
    async with open_phone(tmp_path, speech=tts) as phone:
        await greeted(phone)
        second = "one leaves at five in the evening, from a platform that nobody has found yet."
        phone.agent.then(f"{first} The second ", 0.4, f"{second} And so on.")
        phone.hears("When?")
        await phone.settle(1.1)
        phone.hears("Stop.")
        await phone.settle(1)
        [(_, heard)] = phone.agent.settled
        assert first.startswith(heard)
        # 1.1 s of 1.85 s.
        assert 3 <= len(heard.split()) <= 5


async def test_what_was_heard_is_told_while_the_rest_is_still_being_made(tmp_path: Path) -> None:
    first = "The first train leaves at noon today."
    second = "The second one at five in the evening."
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.tts.delay_s = 1.0
        phone.agent.then(f"{first} {second} The third one at six. The last one leaves at ten.")
        phone.hears("When?")
        await phone.settle(1 + len(first) * 0.05 + 1)
        phone.hears("Stop.")
        await phone.settle(1)
        assert phone.heard == [GREETING, first, second]
        ((_, heard),) = phone.agent.settled
        assert heard.startswith(f"{first} The second")
        assert second not in heard


async def test_with_barge_in_off_nothing_stops_the_bot(tmp_path: Path) -> None:
    async with open_phone(tmp_path, config={"bargeIn": {"enabled": False}}) as phone:
        await telling(phone)
        phone.stt.started()
        await phone.settle(0.5)
        phone.stt.final("Please stop.")
        phone.stt.ended()
        await phone.settle(4)
        assert phone.socket.clears == 0
        assert phone.heard == [GREETING, STORY]
        assert ("user", "Please stop.") in phone.said
        assert phone.agent.asked == ["Tell me a story."]


async def test_the_agents_end_comes_after_its_words_were_heard(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then("Goodbye and thank you.", EndCall())
        phone.hears("That is all.")
        await phone.settle(1.0)
        assert phone.record.live
        await phone.settle(1)
        assert phone.heard == [GREETING, "Goodbye and thank you."]
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.AGENT
        # The socket was closed after the last word was played.
        said = dict(phone.tts.texts_in(bytes(phone.socket.heard)))
        assert said["Goodbye and thank you."] == pytest.approx(1100, abs=1)


async def test_an_agent_may_write_that_the_call_ends(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then('{"spoken": "Goodbye and thank you.", "end": true}')
        phone.hears("That is all.")
        await phone.settle(3)
        assert phone.heard == [GREETING, "Goodbye and thank you."]
        assert phone.record.end_detail is EndDetail.AGENT


async def test_a_carrier_does_not_listen_with_the_last_words(tmp_path: Path) -> None:
    async with open_phone(tmp_path, media=MediaPath.NATIVE) as phone:
        await phone.call_in()
        await phone.settle(3)
        for words, text in ((["Yes."], "Hello?"), (["Goodbye.", EndCall()], "That is all.")):
            phone.agent.then(*words)
            await phone.event(ev.SpeechHeard, text=text, turn_token=phone.record.listen_token)
            await phone.settle(3)
        actions = phone.carrier.performed_of(tel.Speak)
        spoken = [action for action in actions if isinstance(action, tel.Speak)]
        answer, goodbye = spoken[-2:]
        assert answer.listen is not None
        assert goodbye.listen is None


async def test_an_interrupted_goodbye_does_not_end_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then("Goodbye and thank you.", EndCall())
        phone.hears("That is all.")
        await phone.settle(0.6)
        phone.hears("Wait, one more thing.")
        await phone.settle(3)
        assert phone.record.live
        assert phone.agent.asked == ["That is all.", "Wait, one more thing."]
        assert phone.heard[-1] == "Yes."


async def test_an_agent_that_says_nothing_may_still_end_the_call(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        await greeted(phone)
        phone.agent.then(EndCall())
        phone.hears("Bye.")
        await phone.settle(1)
        assert phone.record.end_detail is EndDetail.AGENT


# --- times -----------------------------------------------------------------------------------


async def test_every_turn_leaves_a_row_of_ordered_times(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as phone:
        phone.tts.delay_s = 0.12
        await greeted(phone)
        phone.agent.then(0.3, "One is done. ", 0.2, "Two is done.")
        phone.stt.started()
        await phone.settle(0.5)
        spoke_until = phone.now()
        phone.stt.ended()
        phone.stt.final("Count.")
        await phone.settle(5)
        message, reply = await phone.rows()
        assert (message.kind, reply.kind) == ("message", "reply")
        assert message.first_audio_sent is not None
        assert message.playback_done is not None
        assert message.playback_done - message.first_audio_sent == pytest.approx(1600, abs=5)
        stages = [
            reply.speech_started,
            reply.speech_ended,
            reply.stt_final,
            reply.agent_start,
            reply.first_token,
            reply.tts_first_byte,
            reply.first_audio_sent,
            reply.playback_done,
        ]
        times = [stage for stage in stages if stage is not None]
        assert len(times) == len(stages)
        assert times == sorted(times)
        assert reply.speech_ended == pytest.approx(spoke_until, abs=2)
        assert reply.first_token is not None
        assert reply.agent_start is not None
        assert reply.agent_done is not None
        assert reply.first_token - reply.agent_start == pytest.approx(300, abs=2)
        assert reply.agent_done - reply.first_token == pytest.approx(200, abs=2)
        # Agent, the pause that tells the end of the first sentence, and the synthesis.
        assert reply.latency_ms == pytest.approx(620, abs=5)
        assert not reply.filler
        assert reply.failed is None
        assert reply.barge_in_at is None


async def into_the_goodbye(phone: Phone) -> None:
    """A silent caller is hung up on, and the goodbye has just begun."""
    await phone.call_in()
    while (now := phone.lane.record.utterance) is None or "oodbye" not in now.text:
        await phone.settle(0.05)
    await phone.settle(0.3)


async def test_whoever_answers_into_the_goodbye_is_not_hung_up_on(tmp_path: Path) -> None:
    silence = {"promptAfterMs": 3000, "prompts": 1}
    async with open_phone(tmp_path, config={"silence": silence}) as phone:
        await into_the_goodbye(phone)
        phone.hears("Yes, I am here.")
        await phone.settle(2)
        assert phone.record.live
        assert phone.agent.asked[-1] == "Yes, I am here."
        # Silent again, the caller is asked anew before the call ends.
        asked = len(phone.said)
        await phone.settle(30)
        assert phone.record.end_detail is EndDetail.SILENCE
        assert [speaker for speaker, _ in phone.said[asked:]][-2:] == ["bot", "bot"]


async def test_a_sound_into_the_goodbye_has_the_caller_asked_anew(tmp_path: Path) -> None:
    silence = {"promptAfterMs": 3000, "prompts": 1}
    async with open_phone(tmp_path, config={"silence": silence}) as phone:
        await into_the_goodbye(phone)
        phone.stt.started()
        await phone.settle(1)
        phone.stt.ended()
        await phone.settle(2)
        assert phone.record.live
        await phone.settle(30)
        assert phone.record.end_detail is EndDetail.SILENCE
        phrases = phone.config.phrases
        assert [text for _, text in phone.said][-2:] == [phrases.still_there, phrases.goodbye]
