"""A voice model that is lost for good: the caller hears a sentence before the call ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from voicecall import telephony as tel
from voicecall.audio import AudioFormat
from voicecall.errors import ProviderUnavailable
from voicecall.media import AudioSink
from voicecall.model import CallMode, EndDetail, EndReason, MediaPath, MessageState
from voicecall.realtime import (
    Interrupted,
    RealtimeOptions,
    ResponseDone,
    ResponseStarted,
    Transcript,
)
from voicecall.tts import SpeechProvider, SpeechSession, Utterance
from voicecall_testing.clock import virtual_backend
from voicecall_testing.duplex import ScriptedRealtime, ScriptedRealtimeSession
from voicecall_testing.fakes import STREAMING, ScriptedSpeech
from voicecall_testing.harness import Phone

from .realtime_room import open_realtime

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

MUTE_CARRIER = replace(STREAMING, native_speech=False, native_listening=False)
DOWN = ProviderUnavailable("down", provider="fake")


class _NoSession(SpeechSession):
    def utterance(self, item_id: str, sink: AudioSink) -> Utterance:
        raise AssertionError("nobody opened this session")


class LockedSpeech(SpeechProvider):
    """A synthesis whose sessions never open, or fail to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked = 0

    @asynccontextmanager
    async def session(
        self, voice: str | None, audio_format: AudioFormat
    ) -> AsyncIterator[SpeechSession]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        await anyio.sleep_forever()
        yield _NoSession()


class _FleetingModel(ScriptedRealtime):
    """Its only session has already ended when it opens."""

    @asynccontextmanager
    async def session(self, options: RealtimeOptions) -> AsyncIterator[ScriptedRealtimeSession]:
        async with super().session(options) as session:
            session.end()
            self.open_errors.append(DOWN)
            yield session


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_backend


async def lose_the_model(phone: Phone, model: ScriptedRealtime) -> None:
    """The session ends, and no other can be opened."""
    model.open_errors.append(DOWN)
    model.current.end()
    await phone.settle(0.5)


async def answered(phone: Phone) -> None:
    await phone.dial()
    await phone.answer()
    await phone.settle(0.1)


def heard(phone: Phone, voice: ScriptedSpeech) -> list[str]:
    """What the caller heard of a synthesis."""
    return [text for text, _ in voice.texts_in(bytes(phone.socket.heard))]


async def test_the_chosen_synthesis_says_the_last_words(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        await lose_the_model(phone, model)
        assert phone.engine.lanes
        await phone.settle(10)
        failed = phone.config.phrases.failed
        assert heard(phone, voice) == [failed]
        assert phone.said == [("bot", failed)]
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED
        assert phone.record.end_reason is EndReason.ERROR
        assert phone.carrier.performed_of(tel.Speak) == []


async def test_an_answer_that_was_being_made_is_not_taken_for_the_last_words(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        phrases = phone.config.phrases
        model.current.tell(ResponseDone("r1", "failed", "overloaded"))
        await phone.settle(2)
        model.idle = True
        model.current.tell(ResponseDone("r2", "failed", "overloaded"), ResponseStarted("own"))
        await phone.settle(0.1)
        assert model.current.asked[-1] == ("say", phrases.failed)
        model.current.write("own item", 1000)
        model.current.tell(ResponseDone("own", "completed", items=("own item",)))
        await phone.settle(0.1)
        model.current.speak(phrases.failed, 1000)
        await phone.settle(3)
        assert phone.said == [("bot", phrases.not_understood), ("bot", phrases.failed)]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_a_model_that_is_gone_before_it_was_asked_to_greet(tmp_path: Path) -> None:
    model, voice = _FleetingModel(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await phone.call_in()
        await phone.settle(12)
        assert [kind for kind, _ in model.sessions[0].asked] == ["greet"]
        assert heard(phone, voice) == [phone.config.phrases.failed]
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_what_the_model_had_said_is_heard_first(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        model.current.speak("A long sentence.", 4000)
        await lose_the_model(phone, model)
        await phone.settle(15)
        assert phone.said == [
            ("bot", "A long sentence."),
            ("bot", phone.config.phrases.failed),
        ]


async def test_what_the_model_had_said_is_cut_off_after_half_a_minute(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(
        tmp_path, model, synthesis=voice, realtime={"inactivityMs": 0}
    ) as phone:
        await answered(phone)
        model.current.speak(" ".join(f"word-{second}" for second in range(60)), 60_000)
        await lose_the_model(phone, model)
        await phone.settle(29)
        assert heard(phone, voice) == []
        await phone.settle(10)
        failed = phone.config.phrases.failed
        assert heard(phone, voice) == [failed]
        (_, story), last = phone.said
        assert 29 <= len(story.split()) <= 32
        assert last == ("bot", failed)
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


@pytest.mark.parametrize("how", ["none", "error", "hangs", "no audio", "fails in the middle"])
async def test_the_carriers_own_voice_stands_in(tmp_path: Path, how: str) -> None:
    model = ScriptedRealtime()
    scripted = ScriptedSpeech()
    synthesis: dict[str, SpeechProvider | None] = {
        "none": None,
        "error": LockedSpeech(DOWN),
        "hangs": LockedSpeech(),
        "no audio": scripted,
        "fails in the middle": scripted,
    }
    async with open_realtime(tmp_path, model, synthesis=synthesis[how], voice="nova") as phone:
        failed = phone.config.phrases.failed
        if how == "no audio":
            scripted.mute.add(failed)
        elif how == "fails in the middle":
            scripted.errors.append(DOWN)
        await answered(phone)
        await lose_the_model(phone, model)
        await phone.settle(25)
        (spoken,) = phone.carrier.performed_of(tel.Speak)
        assert isinstance(spoken, tel.Speak)
        assert spoken.text == failed
        assert spoken.listen is None
        # A synthesis has its own voices.
        assert spoken.voice == ("nova" if how == "none" else None)
        assert phone.said == [("bot", failed)]
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_a_carrier_that_drops_the_socket_to_speak_is_not_asked_for_another(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        attached = len(phone.carrier.performed_of(tel.AttachStream))
        await lose_the_model(phone, model)
        assert phone.record.media is MediaPath.NATIVE
        phone.socket.drop()
        await phone.settle(3)
        assert phone.engine.lanes
        assert len(phone.carrier.performed_of(tel.AttachStream)) == attached
        await phone.settle(5)
        assert phone.said == [("bot", phone.config.phrases.failed)]
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_the_call_ends_where_nobody_can_speak(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), LockedSpeech(DOWN)
    async with open_realtime(tmp_path, model, capabilities=MUTE_CARRIER, synthesis=voice) as phone:
        await answered(phone)
        await lose_the_model(phone, model)
        assert voice.asked == 1
        assert phone.said == []
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_a_carrier_that_refuses_to_speak_ends_the_call(tmp_path: Path) -> None:
    model = ScriptedRealtime()
    async with open_realtime(tmp_path, model) as phone:
        await answered(phone)
        phone.carrier.fail(tel.Speak, DOWN)
        await lose_the_model(phone, model)
        assert phone.said == []
        assert phone.record.end_detail is EndDetail.LISTENING_FAILED


async def test_a_model_that_can_still_speak_says_the_last_words(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    model.answer_ms = 3000
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        failed = phone.config.phrases.failed
        for number in range(2):
            model.current.tell(ResponseDone(f"r{number}", "failed", "overloaded"))
            model.current.tell(ResponseDone(f"again{number}", "failed", "overloaded"))
        await phone.settle(5)
        assert ("say", failed) in model.current.asked
        # Nothing takes the floor from them.
        model.current.tell(Interrupted(), Transcript("user", "c", "Wait!", final=True))
        await phone.settle(5)
        assert phone.socket.clears == 0
        assert heard(phone, voice) == []
        assert ("bot", failed) in phone.said
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


@pytest.mark.parametrize("how", ["fails", "gives no audio"])
async def test_a_model_that_cannot_speak_leaves_it_to_the_synthesis(
    tmp_path: Path, how: str
) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        if how == "fails":
            model.silent = True
        else:
            model.answer_ms = 0.0
            model.current.tell(ResponseDone("r0", "failed", "overloaded"))
        model.current.tell(ResponseDone("r1", "failed", "overloaded"))
        await phone.settle(15)
        assert heard(phone, voice) == [phone.config.phrases.failed]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_a_model_that_is_lost_in_the_last_words_begins_no_others(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        model.silent = True
        for number in range(2):
            model.current.tell(ResponseDone(f"r{number}", "failed", "overloaded"))
        await phone.settle(1)
        await lose_the_model(phone, model)
        await phone.settle(15)
        assert heard(phone, voice) == [phone.config.phrases.failed]
        assert phone.said == [("bot", phone.config.phrases.failed)]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_a_model_that_breaks_off_leaves_it_to_the_synthesis(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        model.stalls = True
        for number in range(4):
            # The apology, which breaks off, and then the last words, too.
            model.current.tell(ResponseDone(f"r{number}", "failed", "overloaded"))
            await phone.settle(0.7)
        await phone.settle(15)
        assert heard(phone, voice) == [phone.config.phrases.failed]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_a_model_that_stalls_has_half_a_minute(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(
        tmp_path, model, synthesis=voice, realtime={"inactivityMs": 0}
    ) as phone:
        await answered(phone)
        model.stalls = True
        for number in range(2):
            model.current.tell(ResponseDone(f"r{number}", "failed", "overloaded"))
        await phone.settle(29)
        assert heard(phone, voice) == []
        await phone.settle(10)
        assert heard(phone, voice) == [phone.config.phrases.failed]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_a_model_that_comes_to_no_end_is_broken_off(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(
        tmp_path, model, synthesis=voice, realtime={"inactivityMs": 0}
    ) as phone:
        await answered(phone)
        model.current.tell(ResponseDone("r1", "failed", "overloaded"))
        await phone.settle(2)
        model.stalls, model.answer_ms = True, 60_000.0
        model.current.tell(ResponseDone("r2", "failed", "overloaded"))
        await phone.settle(29)
        assert heard(phone, voice) == []
        await phone.settle(10)
        assert heard(phone, voice) == [phone.config.phrases.failed]


@pytest.mark.parametrize("synthesised", [True, False])
async def test_a_notification_is_told_by_another_voice(tmp_path: Path, synthesised: bool) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    model.open_errors.extend([DOWN, DOWN])
    synthesis = voice if synthesised else None
    # Longer than a synthesis may take to begin.
    message = "Your table is ready. " * 12
    async with open_realtime(tmp_path, model, synthesis=synthesis) as phone:
        await phone.dial(message.strip(), CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(30)
        assert phone.said == [("bot", message.strip())]
        assert phone.record.end_detail is EndDetail.NOTIFIED
        assert phone.record.message is not None
        assert phone.record.message.state is MessageState.DONE
        assert len(phone.carrier.performed_of(tel.Speak)) == (not synthesised)


async def test_a_long_notification_by_the_model_is_not_cut_off_and_said_again(
    tmp_path: Path,
) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    model.refusals.extend([DOWN, DOWN])
    model.answer_ms = 45_000
    message = "Your table is ready. " * 15
    async with open_realtime(
        tmp_path, model, synthesis=voice, realtime={"inactivityMs": 0}
    ) as phone:
        await phone.dial(message.strip(), CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(60)
        assert phone.said == [("bot", message.strip())]
        assert heard(phone, voice) == []
        assert phone.record.end_detail is EndDetail.NOTIFIED


async def test_a_notification_that_was_heard_needs_no_more_words(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    config: dict[str, Any] = {"outbound": {"notifyHangupDelaySec": 5}}
    async with open_realtime(tmp_path, model, synthesis=voice, **config) as phone:
        await phone.dial("Your table is ready.", CallMode.NOTIFY)
        await phone.answer()
        await phone.settle(2)
        await lose_the_model(phone, model)
        await phone.settle(8)
        assert heard(phone, voice) == []
        assert phone.record.end_detail is EndDetail.NOTIFIED


async def test_a_caller_who_hangs_up_needs_no_last_words(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        await lose_the_model(phone, model)
        await phone.hang_up()
        await phone.settle(10)
        assert phone.record.end_reason is EndReason.HANGUP_USER
        assert not phone.engine.lanes


async def fail_twice(phone: Phone, model: ScriptedRealtime) -> None:
    """The model's answers fail so often that the call ends."""
    model.refusals.append(DOWN)
    for number in range(2):
        model.current.tell(ResponseDone(f"r{number}", "failed", "overloaded"))
    await phone.settle(0.05)


async def test_a_model_says_nothing_of_its_own_before_its_last_words(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        model.current.speak("A long sentence.", 3000)
        await fail_twice(phone, model)
        # It would answer who speaks now.
        assert model.current.muted
        model.current.speak("As I was saying:", 1000)
        await phone.settle(15)
        assert phone.said == [
            ("bot", "A long sentence."),
            ("bot", phone.config.phrases.failed),
        ]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_a_session_that_is_opened_for_the_last_words_hears_nothing(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        model.current.speak("A long sentence.", 3000)
        await fail_twice(phone, model)
        model.current.end()
        await phone.settle(0.5)
        assert [session.muted for session in model.sessions] == [True, True]
        await phone.settle(15)
        assert ("say", phone.config.phrases.failed) in model.current.asked
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_last_words_that_the_model_never_begins(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    async with open_realtime(tmp_path, model, synthesis=voice) as phone:
        await answered(phone)
        model.idle = True
        await fail_twice(phone, model)
        await phone.settle(12)
        assert heard(phone, voice) == [phone.config.phrases.failed]
        assert phone.record.end_detail is EndDetail.AGENT_FAILED


async def test_a_greeting_that_the_model_never_begins(tmp_path: Path) -> None:
    model, voice = ScriptedRealtime(), ScriptedSpeech()
    model.idle = True
    async with open_realtime(
        tmp_path, model, synthesis=voice, realtime={"inactivityMs": 0}
    ) as phone:
        await phone.call_in()
        await phone.settle(100)
        greeted = [kind for kind, _ in model.sessions[0].asked]
        assert greeted == ["greet"] * (len(greeted) - 1) + ["say"]
        assert len(greeted) - 1 == phone.engine.policy.message_attempts
        assert model.current.muted
        assert heard(phone, voice) == [phone.config.phrases.failed]
        assert phone.record.end_detail is EndDetail.MESSAGE_FAILED


@pytest.mark.parametrize("mode", list(CallMode))
async def test_where_no_media_socket_comes_the_carrier_speaks(
    tmp_path: Path, mode: CallMode
) -> None:
    async with open_realtime(tmp_path, ScriptedRealtime()) as phone:
        phone.opens_streams = False
        await phone.dial("Your table is ready.", mode)
        await phone.answer()
        await phone.settle(25)
        words = "Your table is ready." if mode is CallMode.NOTIFY else phone.config.phrases.failed
        assert phone.said == [("bot", words)]
        never = EndDetail.STREAM_NEVER_STARTED
        assert phone.record.end_detail is (EndDetail.NOTIFIED if mode is CallMode.NOTIFY else never)
        assert phone.record.end_reason is EndReason.HANGUP_BOT


async def test_where_the_media_socket_stays_away_the_carrier_speaks_at_once(
    tmp_path: Path,
) -> None:
    model = ScriptedRealtime()
    # Nor does a synthesis have a line to speak over.
    async with open_realtime(tmp_path, model, synthesis=ScriptedSpeech()) as phone:
        await answered(phone)
        model.current.speak("A story that is cut off in the middle.", 5000)
        await phone.settle(0.5)
        phone.opens_streams = False
        phone.socket.drop()
        await phone.settle(2.5)
        (action,) = phone.carrier.performed_of(tel.Speak)
        assert isinstance(action, tel.Speak)
        assert action.text == phone.config.phrases.failed
        await phone.settle(10)
        assert phone.record.end_reason is EndReason.HANGUP_BOT
        assert phone.record.end_detail is EndDetail.STREAM_LOST
        assert not phone.engine.lanes
